"""What the image's own Python runs: ``python3 start.py --context ID --language LANGUAGE``.

It also says what is wrong on a Python that is too old for the kernel, so nothing here is newer than Python 3.4. The host
finds its kernels again by these words in the list of processes.

Beside it lie the kernel's modules and, for images without an IPython, the packages of `packages/`. Where the runtime has them
compiled for just this Python they all come from one file (`packing.py` makes it): 100 modules, each read through the
sandbox's file server, cost 1 to 2 ms apiece, and compiling them half a second.
"""
# ruff: noqa: UP031
# pyright: basic, reportArgumentType=false, reportOptionalMemberAccess=false, reportCallIssue=false

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, PathFinder

__all__ = ("Packed", "language_of", "packed")

_OLDEST = (3, 9)
_KERNEL = "belljar_kernel"


def language_of(words):
    """The value of ``--language``."""
    for index, word in enumerate(words[:-1]):
        if word == "--language":
            return words[index + 1]
    return "python"


class Packed:
    """Finder and loader of what is compiled for this Python. A package that the image has too is the image's."""

    def __init__(self, here, modules):
        self.here, self.modules, self.ours = here, modules, {_KERNEL: True}

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules:
            return None
        top = name.partition(".")[0]
        if top not in self.ours:
            images = [place for place in sys.path if not place.startswith(self.here)]
            self.ours[top] = PathFinder.find_spec(top, images) is None
        if not self.ours[top]:
            return None
        is_package, place = self.modules[name][:2]
        spec = ModuleSpec(name, self, origin="%s/%s" % (self.here, place), is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations.append(os.path.dirname(spec.origin))
        return spec

    def create_module(self, spec):
        """The usual kind of module will do."""

    def exec_module(self, module):
        exec(marshal.loads(self.modules[module.__name__][2]), module.__dict__)


def packed(here):
    """The finder for this Python, as a list that is empty where there is none."""
    try:
        with open("%s/modules-%s.bin" % (here, MAGIC_NUMBER.hex()), "rb", 0) as file:
            return [Packed(here, marshal.loads(file.read()))]
    except (OSError, ValueError):
        return []


if __name__ == "__main__":
    if sys.version_info < _OLDEST:
        _message = "Python %d.%d is too old: code needs %d.%d or newer" % (sys.version_info[:2] + _OLDEST)
        _line = '{"kind":"refused","code":"not_supported","message":"%s","hint":"use an image with a newer python3"}\n'
        os.write(1, (_line % _message).encode())
        sys.exit(69)
    _here = os.path.dirname(os.path.abspath(__file__))
    # In a checkout the modules lie beside this file, in a runtime in a folder of their name.
    sys.path[0] = _here if os.path.isdir("%s/%s" % (_here, _KERNEL)) else os.path.dirname(_here)
    sys.meta_path[:0] = packed(_here)
    sys.path.append("%s/%s" % (_here, "py311" if sys.version_info >= (3, 11) else "py39"))
    import belljar_kernel  # noqa: F401

    sys.path[0] = ""  # the code's own folder, as without a script
    from belljar_kernel.main import main

    sys.exit(main(language_of(sys.argv[1:])))
