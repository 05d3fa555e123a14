"""What is typed and what is shown: strengths that are read once, and text that no terminal acts on."""

from __future__ import annotations

import io
import sys
import warnings

import pytest
from doubles import tiny_editor
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from vlbias.cli import app, application, main
from vlbias.cli.terminal import safe_terminal
from vlbias.shown import printable


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("editor") / "tiny"
    tiny_editor().save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "face.png"
    Image.new("RGB", (20, 20), "teal").save(path)
    return path


def called(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["vlbias", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    else:
        code = 0
    return code or 0, capsys.readouterr()


@pytest.mark.parametrize("option", ["images", "self", "detector", "strengths", "align-to"])
def test_parameters_of_python_are_no_attributes(option, editor, picture, tmp_path, monkeypatch, capsys):
    code, shown = called(monkeypatch, capsys, "edit", picture, tmp_path / "o", f"--{option}", "1", "--editor", editor)
    assert code == 1 and f"Unknown attribute '{option.replace('-', '_')}' for tiny" in shown.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--age", "1", "--age", "-1"), "--age: is given twice"),
        (("--skin-tone", "1", "--skin_tone=1"), "is given twice"),
        (("--age", "٣"), "expected a number; got '٣'"),
        (("--age", "1_0"), "expected a number"),
        (("--age", "nan"), "expected a number"),
        (("--age", "inf"), "expected a number"),
        (("--age",), "expected a number; got ''"),
        (("--age", "1", "--face", "²"), "expected only, largest or a number from 0; got '²'"),
        (("--age", "1", "--face", "٣"), "got '٣'"),
        (("--age", "1", "--face", "-1"), "--face"),
    ],
)
def test_numbers_are_read_once_and_plainly(words, message, editor, picture, tmp_path, monkeypatch, capsys):
    code, shown = called(monkeypatch, capsys, "edit", picture, tmp_path / "o", *words, "--editor", editor)
    assert code == 2 and message in shown.err and not (tmp_path / "o").exists()


def test_no_option_of_any_command_is_infinite_or_no_number():
    tried = 0
    for name, command in get_command(app).commands.items():
        words = ["x"] * sum(parameter.param_type_name == "argument" for parameter in command.params)
        needed = [
            word for p in command.params if p.required and p.param_type_name == "option" for word in (p.opts[0], "1")
        ]
        for parameter in command.params:
            if isinstance(parameter.default, float):
                for value in ("nan", "inf", "-1e400"):
                    result = CliRunner().invoke(app, [*name.split(), *words, *needed, f"{parameter.opts[0]}={value}"])
                    assert result.exit_code == 2 and parameter.opts[0] in result.output, (name, value, result.output)
                    tried += 1
    assert tried >= 9


def test_text_that_a_terminal_would_act_on_is_escaped():
    assert printable("a\x1b]0;gone\x07b\r\nc") == "a\\x1b]0;gone\\x07b\\r\\nc"
    assert printable("photo\u202egnp.exe\u200b\udcff\u2028") == "photo\\u202egnp.exe\\u200b\\udcff\\u2028"
    assert printable("Zoë 東京 – ½") == "Zoë 東京 – ½" and printable("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_any_encoding_of_the_terminal_will_do(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with safe_terminal():
        print("東京 → \x1b[2J done")
        print("half\r", end="")
        sys.stdout.writelines(["a\rb\n"])
        sys.stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert "\\x1b[2J done\n" in shown and "half\r" in shown and "a\\rb\n" in shown
    assert ("東京" in shown) == (encoding == "utf-8")


def test_names_of_files_do_not_reach_the_terminal_raw(editor, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "a\x1b[31m\u202eb\nc.png"
    Image.new("RGB", (20, 20)).save(picture)
    code, shown = called(monkeypatch, capsys, "edit", picture, tmp_path / "o", "--age", "1", "--editor", editor)
    assert code == 0 and shown.out.count("\n") == 1 and "\x1b" not in shown.out and "\u202e" not in shown.out
    missing = tmp_path / "no\x1b[31m\u202e.png"
    code, shown = called(monkeypatch, capsys, "edit", missing, tmp_path / "o", "--age", "1", "--editor", editor)
    assert code == 1 and "\\x1b[31m\\u202e.png" in shown.err and "\x1b" not in shown.err


def test_warnings_are_notes_and_other_libraries_are_quiet(capsys):
    with safe_terminal():
        warnings.simplefilter("always")
        warnings.warn_explicit("landmarks are not kept", UserWarning, application.__file__, 1)
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, Image.__file__, 1)
        warnings.warn_explicit("old", DeprecationWarning, application.__file__, 1)
    assert capsys.readouterr().err == "note: landmarks are not kept\n"
