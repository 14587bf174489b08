"""Claim: studies come from an archive whole, and a kill half way loses and repeats nothing.

    python benchmarks/pacs_fetch.py [--studies 20] [--seed 1]

An Orthanc on loopback ports (Debian packages, see scripts/orthanc) is filled with phantom studies.
Each protocol fetches all of them twice: once undisturbed, and once killed (SIGKILL) when half of
the images are in the store and then started again with the same command. Compared are the pixels
and all other elements with what was uploaded, and the images that the journal notes as stored with
those in the store.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from pydicom import dcmread

from client.intake.quiet import quietly
from sim.config import PhantomConfig
from sim.hospitals import make_hospitals
from sim.orthanc import Orthanc, free_port

COMMAND = "import typer; from client.pacs_cli import fetch_command; typer.run(fetch_command)"
ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 1200


def phantoms(folder: Path, studies: int, seed: int) -> list[Path]:
    """Return the files of so many phantom studies."""
    config = PhantomConfig.model_validate(
        {
            "hospitals": [{"name": "oak", "num_patients": studies, "vendors": {"canon": 1}}],
            "images": {"cine_frames": 6, "matrix_px": 64, "sublevels": 1},
        }
    )
    make_hospitals(config, folder, seed)
    return sorted(path for path in (folder / "oak" / "dicom").rglob("*") if path.is_file())


def make_site(site: Path, protocol: str, orthanc: Orthanc, own_port: int) -> Path:
    """Write the settings of a site that fetches from the archive."""
    site.mkdir()
    pacs: dict[str, object] = {"protocol": protocol, "host": "127.0.0.1"}
    if protocol == "dicomweb":
        (site / "login").touch(0o600)
        (site / "login").write_text(":".join(orthanc.login))
        pacs |= {"port": orthanc.http_port, "credentials": {"file": "login"}}
    else:
        pacs |= {"port": orthanc.dicom_port, "ae_title": orthanc.ae_title}
        pacs |= {"own_host": "127.0.0.1", "own_port": own_port}
    images = {"format": "dicom", "path": "store"}
    (site / "site.yaml").write_text(yaml.safe_dump({"name": "s", "images": images, "pacs": pacs}))
    return site


def start(site: Path) -> subprocess.Popen[bytes]:
    """Start ``concors-client fetch`` for all studies of the phantom."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(site), "--description", "CARDIAC*"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )


def in_store(site: Path) -> list[Path]:
    """Return the whole images of a store."""
    return list((site / "store").glob("*/*.dcm"))


def journal_images(site: Path) -> list[str]:
    """Return the names of the images that the journal notes as stored, as often as it does."""
    text = (site / ".concors" / "fetch.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["detail"]["image"] for line in lines if line["event"] == "stored"]


def identical(site: Path, uploaded: dict[str, Path]) -> int:
    """Return how many images are, pixel bytes and all other elements, what was uploaded."""
    count = 0
    with quietly():
        for path in in_store(site):
            found = dcmread(path)
            other = dcmread(uploaded[str(found.SOPInstanceUID)])
            count += found.PixelData == other.PixelData and found == other
    return count


def killed(site: Path, half: int) -> int:
    """Start, kill when half is there, and return how many images the store has then."""
    process = start(site)
    end = time.monotonic() + LIMIT_S
    while len(in_store(site)) < half and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    return len(in_store(site))


def row(protocol: str, disturbed: bool, site: Path, uploaded: dict[str, Path]) -> bool:
    """Fetch once, print the counts, and return whether the claim holds."""
    before = killed(site, len(uploaded) // 2) if disturbed else 0
    code = start(site).wait(LIMIT_S)
    noted = journal_images(site)
    there, same = len(in_store(site)), identical(site, uploaded)
    lost, repeated = len(uploaded) - there, len(noted) - len(set(noted))
    print(
        f"{protocol:9s} {'killed' if disturbed else 'whole':7s} at kill {before:5d}  exit {code}  "
        f"stored {there:5d}  identical {same:5d}  lost {lost}  repeated {repeated}",
        flush=True,
    )
    whole = code == 0 and same == there == len(set(noted)) == len(uploaded)
    return whole and repeated == 0 and (not disturbed or 0 < before < len(uploaded))


def main() -> int:
    """Print the counts of every protocol; exit with 1 if the claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    own_port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = phantoms(folder, asked.studies, asked.seed)
        uploaded = {str(dcmread(p, stop_before_pixels=True).SOPInstanceUID): p for p in files}
        with Orthanc(folder / "orthanc", {"CONCORS": own_port}) as orthanc:
            orthanc.upload(path.read_bytes() for path in files)
            print(f"{asked.studies} studies, {len(files)} images")
            good = [
                row(
                    protocol,
                    disturbed,
                    make_site(folder / f"{protocol}-{disturbed}", protocol, orthanc, own_port),
                    uploaded,
                )
                for protocol in ("c-get", "c-move", "dicomweb")
                for disturbed in (False, True)
            ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
