"""Captions from tables, the vocabulary, the loss against plain loops, training and resuming."""

from __future__ import annotations

import gzip
import random

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from clip_and_paths import caption_loss as reference_loss
from clip_and_paths import statement_loss as reference_statement_loss

from vlbias import world
from vlbias.clip import (
    Augmentation,
    CaptionTemplates,
    ClipConfig,
    ClipTrainingSettings,
    TableCaptions,
    caption_loss,
    learn_merges,
    statement_loss,
    train_clip,
)
from vlbias.clip.batches import Statements
from vlbias.clip.tokenizer import load_tokenizer, write_merges
from vlbias.errors import ConfigError, LabelError, ShapeError, TrainingError, UnknownNameError
from vlbias.recipes import photograph_templates, synthfaces_templates
from vlbias.world.phrases import ADJECTIVES, TAILS


def unit_rows(n, e, seed):
    return F.normalize(torch.randn(n, e, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_loss_with_one_caption_each_is_clips_loss():
    x, t = unit_rows(5, 8, 0), unit_rows(5, 8, 1)
    logits = 7 * x @ t.T
    labels = torch.arange(5)
    want = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(caption_loss(x, t, torch.eye(5, dtype=torch.int8), torch.tensor(7.0)), want)


def test_loss_against_plain_loops():
    x, t = unit_rows(4, 6, 2), unit_rows(3, 6, 3)
    fit = torch.tensor([[1, 0, 0], [1, 1, 0], [0, -1, 1], [-1, 0, 1]], dtype=torch.int8)
    want = reference_loss(x.tolist(), t.tolist(), fit.tolist(), 3.0)
    assert float(caption_loss(x, t, fit, torch.tensor(3.0))) == pytest.approx(want, abs=1e-5)


def test_loss_does_not_depend_on_order():
    x, t = unit_rows(4, 6, 2), unit_rows(3, 6, 3)
    fit = torch.tensor([[1, 0, 0], [1, 1, 0], [0, -1, 1], [-1, 0, 1]], dtype=torch.int8)
    rows, columns = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    torch.testing.assert_close(
        caption_loss(x[rows], t[columns], fit[rows][:, columns], torch.tensor(3.0)),
        caption_loss(x, t, fit, torch.tensor(3.0)),
    )


def test_an_image_that_everything_fits_gives_no_gradient():
    x, t = unit_rows(2, 6, 2).requires_grad_(), unit_rows(2, 6, 3)
    caption_loss(x, t, torch.ones(2, 2, dtype=torch.int8), torch.tensor(3.0)).backward()
    assert float(x.grad.abs().max()) == 0


def test_statement_loss_against_plain_loops():
    x, t = unit_rows(4, 6, 2), unit_rows(5, 6, 3)
    fit = torch.tensor([[1, 0, 0, 1, 0], [1, 1, 0, -1, -1], [0, -1, 1, 0, 1], [-1, 1, 0, 1, 1]], dtype=torch.int8)
    groups = torch.tensor([0, 0, 0, 1, 1])
    want = reference_statement_loss(x.tolist(), t.tolist(), fit.tolist(), groups.tolist(), 3.0)
    assert float(statement_loss(x, t, fit, groups, torch.tensor(3.0))) == pytest.approx(want, abs=1e-5)
    everything_fits = torch.ones(4, 5, dtype=torch.int8)
    assert float(statement_loss(x, t, everything_fits, groups, torch.tensor(3.0))) == 0


def test_statements_are_about_one_column(templates, coloured):
    captions = TableCaptions(templates, coloured[1])
    statements = captions.statements()
    assert set(statements) == {"colour", "bar"}
    for column, by_phrases in statements.items():
        for phrases, wordings in by_phrases.items():
            ((own, phrase),) = [captions.phrases[number] for number in phrases]
            assert own == column
            assert all(phrase in wording for wording in wordings)
            assert len(wordings) == len(set(wordings))
    assert len(statements["colour"]) == 3


def test_statements_are_tokenised_once_and_drawn_from_seed_and_step(templates, coloured):
    """As plain loops over the sentences draw them; a token here is a sentence's hash."""
    captions, calls = TableCaptions(templates, coloured[1]), []

    def tokenize(texts):
        calls.append(len(texts))
        return torch.tensor([[hash(text)] for text in texts])

    drawn, pool = Statements(captions, 2, 5, tokenize), captions.statements()
    rows = torch.arange(20)
    for step in range(3):
        rng, texts, stated, groups = random.Random(5 * 1_000_003 + step), [], [], []
        for number, column in enumerate(sorted(pool)):
            for phrases in rng.sample(sorted(pool[column]), 2):
                texts.append(rng.choice(pool[column][phrases]))
                stated.append(phrases)
                groups.append(number)
        tokens, fit, columns = drawn.compare(rows, step)
        assert tokens.flatten().tolist() == [hash(text) for text in texts]
        assert columns.tolist() == groups
        assert torch.equal(fit, captions.fit(rows, captions.claims(stated)))
    rng, again = random.Random(1), random.Random(1)
    by_phrases = pool[again.choice(sorted(pool))]
    phrases = again.choice(sorted(by_phrases))
    assert drawn.tokens[drawn.any(rng)].item() == hash(again.choice(by_phrases[phrases]))
    assert calls == [sum(len(texts) for by_phrases in pool.values() for texts in by_phrases.values())]


def test_anchors_put_apart_what_excludes_and_together_what_goes_along():
    rows = [{"colour": c, "bar": b, "size": "big" if b else "small"} for c in ("red", "blue") for b in (0, 1)] * 6
    templates = CaptionTemplates(
        adjectives={
            "colour": {"red": ("red", "scarlet"), "blue": ("blue",)},
            "bar": {0: ("plain",), 1: ("barred",)},
            "size": {"big": ("big",), "small": ("small",)},
        }
    )
    captions = TableCaptions(templates, pd.DataFrame(rows))
    anchors = captions.anchors(12)
    at = {phrase: anchors[number] for number, (_, phrase) in enumerate(captions.phrases)}
    torch.testing.assert_close(anchors.norm(dim=1), torch.ones(len(anchors)))
    assert float(at["red"] @ at["scarlet"]) == pytest.approx(1, abs=1e-3)
    assert float(at["red"] @ at["blue"]) == pytest.approx(-1, abs=1e-3)
    assert float(at["barred"] @ at["big"]) == pytest.approx(1, abs=1e-3)
    assert float(at["barred"] @ at["red"]) == pytest.approx(0, abs=1e-3)
    assert torch.equal(captions.anchors(12), anchors)


def test_a_column_that_is_not_known_of_an_image_teaches_it_nothing():
    x, t = unit_rows(1, 6, 2).requires_grad_(), unit_rows(2, 6, 3)
    loss = statement_loss(x, t, torch.tensor([[-1, -1]]), torch.tensor([0, 0]), torch.tensor(3.0))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(x.grad.abs().max()) == 0


def test_merges_make_words_single_tokens_and_spell_the_rest(tmp_path):
    merges = learn_merges(["a photo of a smiling woman", "a smiling man"])
    write_merges(tmp_path / "m.gz", merges)
    tokenizer = load_tokenizer(tmp_path / "m.gz", 12)
    assert len(tokenizer.encode("a smiling woman")) == 3
    assert len(tokenizer.encode("smirking")) > 1
    assert tokenizer.decode(tokenizer.encode("smirking 木")).strip() == "smirking 木"
    assert learn_merges(["a smiling man", "a photo of a smiling woman"]) == merges
    assert len(learn_merges(["a photo of a smiling woman"], max_merges=5)) == 5
    assert gzip.decompress((tmp_path / "m.gz").read_bytes()).startswith(b"#version")


def test_sentences_state_what_the_table_says(templates, coloured):
    _, table = coloured
    drawn = templates.draw(table, seed=3)
    assert [text for text, _ in drawn] == templates(table, seed=3)
    assert templates(table, seed=3) != templates(table, seed=4)
    for (text, stated), row in zip(drawn, table.itertuples(), strict=True):
        assert stated
        for column, phrase in stated:
            assert phrase in text
            assert phrase in templates.phrases_for(column, getattr(row, column))


def test_missing_values_are_not_mentioned():
    table = pd.DataFrame({"skin": [None, "dark"], "age": [30.0, float("nan")]})
    templates = CaptionTemplates(
        tails={"skin": {"dark": ("with dark skin",)}}, adjectives={"age": lambda a: ("young",)}, mention=1.0
    )
    first, second = templates(table)
    assert "skin" not in first
    assert "young" in first
    assert "young" not in second
    captions = TableCaptions(templates, table)
    stated = [(captions.number["age", "young"],), (captions.number["skin", "with dark skin"],)]
    fit = captions.fit(torch.tensor([0, 1]), captions.claims(stated))
    assert fit.tolist() == [[1, -1], [-1, 1]]


def test_captions_fit_every_row_of_which_they_are_true(templates, coloured):
    _, table = coloured
    captions = TableCaptions(templates, table)
    _, stated = captions.draw(0)
    rows = torch.arange(60)
    fit = captions.fit(rows, captions.claims(stated))
    for j, phrases in enumerate(stated):
        for i, row in enumerate(table.itertuples()):
            true = all(
                p in templates.phrases_for(c, getattr(row, c)) for c, p in (captions.phrases[n] for n in phrases)
            )
            assert fit[i, j] == int(true)
    assert 0 < fit.float().mean() < 1


def test_training_is_repeatable_and_resumes_to_the_same_weights(
    coloured, templates, tiny_config, tmp_path, monkeypatch
):
    images, table = coloured
    captions = TableCaptions(templates, table)
    training = ClipTrainingSettings(num_images=240, batch_size=30, text_steps=4)
    whole = train_clip(images, captions, tiny_config, training)
    state = tmp_path / "clip.state"

    class Killed(Exception):
        pass

    def kill(seen, loss):
        if seen == 120:
            raise Killed

    monkeypatch.setattr("vlbias.optim.SAVE_INTERVAL_S", 0.0)
    with pytest.raises(Killed):
        train_clip(images, captions, tiny_config, training, state_path=state, on_step=kill)
    assert state.is_file()
    longer = ClipTrainingSettings(num_images=300, batch_size=30, text_steps=4)
    with pytest.raises(TrainingError, match="state of another run: settings.num_images differ"):
        train_clip(images, captions, tiny_config, longer, state_path=state)
    resumed = train_clip(images, captions, tiny_config, training, state_path=state)
    monkeypatch.setattr("vlbias.clip.learner.augment", None)  # a finished state trains no more
    resumed = train_clip(images, captions, tiny_config, training, state_path=state)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_captions_may_be_lists_or_a_function(coloured, tiny_config):
    images, table = coloured
    training = ClipTrainingSettings(
        num_images=60, batch_size=30, augmentation=Augmentation(brightness=0.1, contrast=0.1)
    )
    texts = [f"a {colour} square" for colour in table["colour"]]
    for captions in (texts, [[text, "a square"] for text in texts], lambda epoch: texts):
        clip = train_clip(images, captions, tiny_config, training)
        assert torch.isfinite(clip.encode_text(["a red square"])).all()
    with pytest.raises(ShapeError, match="one entry for each of the 60 images; got 59"):
        train_clip(images, texts[:59], tiny_config, training)
    with pytest.raises(ShapeError, match=r"`captions\(0\)` must return 60 texts"):
        train_clip(images, lambda epoch: texts[:5], tiny_config, training)


def test_time_budget_ends_training(coloured, tiny_config):
    images, table = coloured
    seen = []
    training = ClipTrainingSettings(num_images=10**9, batch_size=30, max_seconds=0.5)
    train_clip(images, list(table["colour"]), tiny_config, training, on_step=lambda n, loss: seen.append(n))
    assert 0 < seen[-1] < 10**6


def test_photograph_captions_cover_every_age():
    table = pd.DataFrame(
        {
            "age": [0.0, 5, 16, 30, 40, 50, 90],
            "gender": ["male", "female"] * 3 + ["male"],
            "race": ["White", "Black", "Asian", "Indian", "Others", "White", "Black"],
            "skin": ["light", "dark", "light", None, None, "light", "dark"],
        }
    )
    assert len(TableCaptions(photograph_templates(), table).draw(0)[0]) == 7
    with pytest.raises(LabelError, match="No phrase for the value 'Martian' of column 'race'"):
        photograph_templates().phrases_for("race", "Martian")
    with pytest.raises(UnknownNameError, match="Unknown column 'skin' for captions"):
        photograph_templates()(table.drop(columns="skin"))


def test_the_words_for_drawn_faces_are_those_of_the_world():
    templates = synthfaces_templates()
    assert templates.phrases_for("glasses", 0) == list(TAILS["glasses"][0])
    assert set(templates.columns) == set(templates.mention) == {"gender", *ADJECTIVES, *TAILS}
    table = world.sample(40, seed=1).table()
    assert len(TableCaptions(templates, table).draw(0)[0]) == 40  # every value has its words


def test_bad_settings(coloured, tiny_config):
    images, _ = coloured
    with pytest.raises(ShapeError, match=r"`images` must be uint8 \(n, 3, h, w\)"):
        train_clip(images.float(), ["a"] * 60, tiny_config)
    with pytest.raises(ShapeError, match="two or more images"):
        train_clip(images[:1], ["a"], tiny_config)
    with pytest.raises(ConfigError, match="multiple of 32"):
        ClipConfig(image_size=40)
    with pytest.raises(ConfigError, match="multiple of `text_heads`"):
        ClipConfig(text_width=130)
    with pytest.raises(ConfigError, match="`vision_layers` of ClipConfig must be a list of 4 entries"):
        ClipConfig(vision_layers=(1, 1))
    with pytest.raises(ConfigError, match="`context_length` of ClipConfig must be a whole number in 3..1024"):
        ClipConfig(context_length=2)
    with pytest.raises(ConfigError, match="`num_images` of ClipTrainingSettings must be a whole number >= 1"):
        ClipTrainingSettings(num_images=0)
    with pytest.raises(ConfigError, match="`ema_decay` of"):
        ClipTrainingSettings(ema_decay=1.0)
    with pytest.raises(ConfigError, match="must be a number > 0"):
        ClipTrainingSettings(learning_rate=0)
    with pytest.raises(ConfigError, match=r"`temperature` of .* in 0.01..1"):
        ClipTrainingSettings(temperature=2)
    with pytest.raises(ConfigError, match="`statements` of .* in 2..1024; got 1"):
        ClipTrainingSettings(statements=1)
    with pytest.raises(ConfigError, match="`freeze_text` of .* in 0..1"):
        ClipTrainingSettings(freeze_text=-0.1)
    with pytest.raises(ConfigError, match="none was given"):
        CaptionTemplates()
    with pytest.raises(ConfigError, match="probabilities"):
        CaptionTemplates(tails={"a": {}}, mention=2.0)
