"""The project that `offhook handlers new` writes: `my_crm` under another name."""

import keyword
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

_SUFFIX = ".template"


def project(name: str) -> dict[str, str]:
    """Return the files of a new handler project: file name to text.

    Raises:
        ValueError: the name is unusable; the message says why.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is not a valid module name: choose one such as my_crm")
    if find_spec(name) is not None:
        raise ValueError(f"a module {name} is already installed: choose another name")
    templates = {
        each.name.removesuffix(_SUFFIX): each.read_text(encoding="utf-8")
        for each in files(__name__).iterdir()
        if each.name.endswith(_SUFFIX)
    }
    class_name = "".join(part.capitalize() for part in name.split("_"))
    if class_name != "MyCrm" and class_name in re.findall(r"\w+", "".join(templates.values())):
        raise ValueError(f"a class {class_name} would clash with another: choose another name")
    return {
        file.replace("my_crm", name): text.replace("my_crm", name).replace("MyCrm", class_name)
        for file, text in templates.items()
    }


def write(name: str, folder: Path) -> list[Path]:
    """Write the project into a new folder and return its files.

    Raises:
        ValueError: the name is unusable.
        OSError: the folder exists or cannot be written.
    """
    texts = project(name)
    folder.mkdir()
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in sorted(texts)]
