"""From the imports that an agent may use to the distributions that have to be installed for them."""

import re
import sys
from collections.abc import Iterable

__all__ = ("distribution_of", "imports_of")

_NAMES = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "google": "protobuf",
    "googleapiclient": "google-api-python-client",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "kafka": "kafka-python",
    "ldap": "python-ldap",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "osgeo": "GDAL",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "socks": "PySocks",
    "telegram": "python-telegram-bot",
    "usb": "pyusb",
    "win32api": "pywin32",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}
"""Import name → distribution, where they differ by more than case and hyphens."""
_IMPORT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_OURS = frozenset(("belljar_host", "smolagents"))


def imports_of(authorized: Iterable[str]) -> list[str]:
    """Top-level import names that are neither the standard library's, nor a wildcard, nor no name at all."""
    tops = {name.strip().partition(".")[0] for name in authorized}
    return sorted(
        top for top in tops if _IMPORT.fullmatch(top) and top not in sys.stdlib_module_names and top not in _OURS
    )


def distribution_of(name: str) -> str:
    return _NAMES.get(name, name.replace("_", "-"))
