"""Parts of the demo: processes, the small model, the gateway, the chats, the report. Standard library only."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(ROOT, ".cache")


class DemoError(Exception):
    """Something a person has to know; its text is all they see."""
