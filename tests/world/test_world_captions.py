"""Captions: true, varied, deterministic, and in one language with the dipoles."""

from __future__ import annotations

import re

import pytest

from vlbias import world
from vlbias.errors import ConfigError

# What a phrase claims, as (pattern, column, values for which it is true).
CLAIMS = [
    (r"not smiling|unsmiling|without a smile|no smile|neutral exp|\b(sad|surprised|angry|disgusted)\b", "smile", {0}),
    (r"(?<!not )\bsmiling|with a (big |happy )?smile|in a smile", "smile", {1}),
    (r"without (eye)?glasses|not wearing glasses|no glasses", "glasses", {0}),
    (r"with (eye)?glasses|(?<!not )wearing (eye)?glasses|spectacles", "glasses", {1}),
    (r"clean-shaven|shaved face|without a beard|no beard|without facial hair", "beard", {0}),
    (r"with a (short |full )?beard|\bbearded", "beard", {1}),
    (r"\b(man|gentleman|he|male person)\b", "gender", {"male"}),
    (r"\b(woman|lady|she|female person)\b", "gender", {"female"}),
    (r"(?<!middle-)\b(old|older|elderly|aged)\b|middle-aged", "age_group", {"old"}),
    (r"\b(young|youthful|teens|twenties)\b", "age_group", {"young"}),
    (r"\b(light|pale|fair|beige) skin", "skin", {"light"}),
    (r"\b(dark|brown) skin", "skin", {"dark"}),
    (r"(wide|broad) nose", "nose", {"wide"}),
    (r"(narrow|thin) nose", "nose", {"narrow"}),
    (r"(full|thick) lips", "lips", {"full"}),
    (r"(thin|narrow) lips", "lips", {"thin"}),
    (r"\bsad\b", "expression", {"sad"}),
    (r"surprised|open mouth", "expression", {"surprise"}),
    (r"angry|anger", "expression", {"anger"}),
    (r"disgust", "expression", {"disgust"}),
    *[(rf"{c}(?= hair)", "hair_color", {c}) for c in ("black", "brown", "blond", "red", "grey")],
    *[(rf"{length} (?=(\w+ )?hair)", "hair_length", {length}) for length in ("short", "medium", "long")],
    *[(rf"{c} eyes", "eye_color", {c}) for c in ("brown", "blue", "green")],
]


@pytest.mark.parametrize("expressions", [None, world.EXPRESSIONS])
def test_captions_are_true(expressions: tuple[str, ...] | None) -> None:
    faces = world.sample(1500, seed=1, expressions=expressions)
    table = faces.table()
    made = dict.fromkeys(range(len(CLAIMS)), 0)
    for seed in range(2):
        for caption, row in zip(world.captions(faces, seed=seed), table.to_dict("records"), strict=True):
            for k, (pattern, column, values) in enumerate(CLAIMS):
                if re.search(pattern, caption):
                    made[k] += 1
                    assert row[column] in values, (caption, column, row[column])
            if years := re.search(r"of (\d+) years", caption):
                assert int(years.group(1)) == int(row["age"])
    unused = [CLAIMS[k][0] for k, times in made.items() if times < 10]
    moods = ("sad", "surprised", "angry", "disgust")
    assert not [pattern for pattern in unused if expressions or not any(m in pattern for m in moods)]


def test_captions_depend_on_face_and_seed_alone() -> None:
    faces = world.sample(40, seed=2)
    first = world.captions(faces, seed=5)
    assert world.captions(faces, seed=5) == first
    assert world.captions(faces[10:12], seed=5) == first[10:12]
    assert sum(a != b for a, b in zip(first, world.captions(faces, seed=6), strict=True)) > 35
    assert all(text == text.lower() and len(text) < 300 for text in first)


def test_a_counterfactual_changes_only_what_the_caption_says_of_it() -> None:
    faces = world.sample(300, seed=3).replace(smile=0)
    before, after = world.captions(faces), world.captions(faces.replace(smile=1))
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert 120 < len(pairs) < 260
    assert all(re.search(CLAIMS[0][0], a) and re.search(CLAIMS[1][0], b) for a, b in pairs)


def test_captions_are_varied() -> None:
    texts = world.captions(world.sample(2000, seed=4))
    assert len(set(texts)) > 1900
    words = {word for text in texts for word in re.findall(r"[a-z-]+", text)}
    for poles in world.DIPOLES.values():
        for prompt in (*poles[0], *poles[1]):
            unknown_words = set(re.findall(r"[a-z-]+", prompt)) - words
            assert len(unknown_words) <= 3, (prompt, unknown_words)


def test_dipoles_name_every_judged_attribute() -> None:
    assert set(world.DIPOLES) == {
        "age", "skin_tone", "gender", "smile", "glasses", "beard", "nose_width", "lip_fullness"
    }  # fmt: skip
    for positive, negative in world.DIPOLES.values():
        assert positive and len(positive) == len(negative) and not set(positive) & set(negative)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_caption_seed_is_checked(seed: object) -> None:
    with pytest.raises(ConfigError, match="`seed` must be a whole number >= 0"):
        world.captions(world.sample(1), seed=seed)  # type: ignore[arg-type]


def test_no_faces_no_captions() -> None:
    assert world.captions(world.sample(0)) == []
