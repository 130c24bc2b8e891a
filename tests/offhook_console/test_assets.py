"""The static files: what is vendored, and that pages need nothing else."""

import hashlib
import re

from offhook_console.rendering import STATIC

VENDOR = STATIC / "vendor"
TEMPLATES = STATIC.parent / "templates"


def test_vendored_files_are_those_that_were_looked_at() -> None:
    lines = [line.split() for line in (VENDOR / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    own = {"SHA256SUMS", "README.md"}
    there = {f"./{path.relative_to(VENDOR)}" for path in VENDOR.rglob("*") if path.is_file()}
    assert set(sums) == there - {f"./{name}" for name in own}
    for name, digest in sums.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_everything_vendored_has_its_licence() -> None:
    listed = re.findall(r"^\| `(\w+)/` \|", (VENDOR / "README.md").read_text(), re.MULTILINE)
    folders = {path.name for path in VENDOR.iterdir() if path.is_dir()}
    assert set(listed) == folders
    assert all(list((VENDOR / name).glob("LICENSE*")) for name in folders)


def test_no_asset_names_another_host() -> None:
    own = [path for path in STATIC.rglob("*") if path.suffix in (".css", ".js", ".svg")]
    for path in [*own, *TEMPLATES.glob("*.html")]:
        text = path.read_text()
        loads = (
            r"""(?:src|href|action)=["']https?:|url\(["']?(?:https?:|data:|//)|@import ["']http"""
        )
        if VENDOR not in path.parents:  # Pico has icons in data:, which our sheet replaces
            assert not re.search(loads, text), path


def test_no_template_has_inline_script_or_style() -> None:
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src)|javascript:", text), path


def test_all_that_follows_the_feed_is_fetched_once_something_may_have_been_missed() -> None:
    # Those inside an element that is fetched.
    inside = {"live-minute from:body", "live-calls from:body throttle:2s, live-agents from:body"}
    for path in TEMPLATES.glob("*.html"):
        for trigger in re.findall(r'hx-trigger="([^"]*live-[^"]*)"', path.read_text()):
            assert "live-all from:body" in trigger or trigger in inside, (path.name, trigger)


def test_every_icon_of_a_template_exists() -> None:
    known = set(re.findall(r'<symbol id="([\w-]+)"', (STATIC / "icons.svg").read_text()))
    for path in TEMPLATES.glob("*.html"):
        for name in re.findall(r'icon\("([\w-]+)"', path.read_text()):
            assert name in known, f"{path.name}: {name}"
