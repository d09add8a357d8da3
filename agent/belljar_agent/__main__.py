"""``python -m belljar_agent``"""

from __future__ import annotations

import sys

from belljar_agent.main import main

__all__ = ()

sys.exit(main())
