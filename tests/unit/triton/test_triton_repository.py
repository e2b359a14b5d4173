"""Model repositories with the mistakes that people make."""

from pathlib import Path

import pytest

from tritonfleet.triton.repository import Repository, inspect

SHIPPED = Path(__file__).parents[3] / "model_repository"


def test_the_shipped_models_are_sound() -> None:
    found = inspect(SHIPPED, ("*",), frozenset({"python"}))
    assert found == Repository(("accumulator", "digits", "echo", "repeat", "text_work"))
    assert inspect(SHIPPED, ("echo",)).models == ("echo",)


@pytest.mark.parametrize(
    ("config", "files", "what", "fix"),
    [
        (
            'name: "m"\nbckend: "python"',
            ("1/model.py",),
            "config.pbtxt:2:1 : Message type",
            "correct that line",
        ),
        ('name: "other"', ("1/model.py",), "names the model 'other', its folder 'm'", 'write name: "m"'),
        ('backend: "python"', (), "has no version", "mkdir"),
        ('backend: "python"', ("1/modle.py",), "version 1 has no model.py", "put it at"),
        ('backend: "python"', ("1/model.py", "2/x"), "version 2 has no model.py", "/2/model.py"),
        ('backend: "python" default_model_filename: "a.py"', ("1/model.py",), "has no a.py", "/1/a.py"),
        ('platform: "onnxruntime_onnx"', ("1/model.onnx",), "needs backend 'onnxruntime'", "triton.image"),
    ],
)
def test_what_will_not_load_is_told(
    tmp_path: Path, config: str, files: tuple[str, ...], what: str, fix: str
) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.pbtxt").write_text(config)
    for file in files:
        (model / file).parent.mkdir(exist_ok=True)
        (model / file).touch()
    (trouble,) = inspect(tmp_path, ("*",), frozenset({"python"})).troubles
    assert trouble.model == "m"
    assert what in trouble.what
    assert fix in trouble.fix


def test_what_is_not_known_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    assert inspect(tmp_path, ("*",)) == Repository(("m",))
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "mine"')
    assert inspect(tmp_path, ("*",)) == Repository(("m",))
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "none", ("*",))
