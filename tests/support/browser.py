"""A headless Chromium that opens a page and returns what it has become."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=3000 --window-size=1200,2000"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def opened(page: Path, profile: Path) -> str:
    """Return the page's elements after its script has run, as HTML without the script."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *_FLAGS.split(), f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return unescape(re.sub(r"(?s)<script.*?</script>", "", done.stdout))


def text_of(html: str) -> str:
    """The text between the tags, with single spaces."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())
