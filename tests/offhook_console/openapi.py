"""Writes docs/openapi.json: `python -m tests.offhook_console.openapi`."""

import json

from tests.offhook_console.test_api import DOCUMENT, document

if __name__ == "__main__":
    DOCUMENT.write_text(json.dumps(document(), indent=1, ensure_ascii=False) + "\n")
