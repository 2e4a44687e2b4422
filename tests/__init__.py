"""Tests of all packages; whatever is loaded for them is loaded from here on.

Collections of garbage are rarer: among so many objects they took a quarter of the time to load
libraries, and a tenth of all others.
"""

import gc

gc.set_threshold(50_000)
