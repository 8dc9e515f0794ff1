"""``python -m harness_ext.cli`` is `mmla`."""

import sys

from harness_ext.cli import main

sys.exit(main())
