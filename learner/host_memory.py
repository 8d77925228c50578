"""The learner process and its memory: how much it took, and how the C library hands it back.

A forward and backward takes and frees the same large buffers again and again. glibc returns each to the kernel, which
clears every page of the next one anew.
"""

import ctypes
import resource
import sys

# From malloc.h; the numbers are part of glibc's interface.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let malloc keep what was freed for the next allocation, for the whole process. False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def peak_rss_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
