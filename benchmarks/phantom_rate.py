"""Patients a second on one core, at the size of a demonstration study.

Run: ``python benchmarks/phantom_rate.py [CONFIG] [PATIENTS_PER_HOSPITAL]``; the claim is 5 or more.
"""

import sys
import tempfile
import time
from pathlib import Path

from sim.config import PhantomConfig, load_phantom_config
from sim.hospitals import make_hospitals

CLAIM = 5.0


def measure(config: PhantomConfig, num_patients: int) -> tuple[float, float]:
    """Return patients per second of wall time and of processor time."""
    hospitals = [
        hospital.model_copy(
            update={
                "num_patients": num_patients,
                "num_masks": round(num_patients * hospital.num_masks / hospital.num_patients),
            }
        )
        for hospital in config.hospitals
    ]
    small = config.model_copy(update={"hospitals": tuple(hospitals)})
    with tempfile.TemporaryDirectory() as folder:
        make_hospitals(small, Path(folder) / "warm", seed=0)
        wall, cpu = time.perf_counter(), time.process_time()
        make_hospitals(small, Path(folder) / "timed", seed=1)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    total = num_patients * len(hospitals)
    return total / wall, total / cpu


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "configs/demo.yaml")
    rate, cpu_rate = measure(load_phantom_config(path), int((sys.argv[2:] or ["10"])[0]))
    print(f"{rate:.2f} patients/s wall, {cpu_rate:.2f} patients/s of processor time")
    print(f"claim: >= {CLAIM} -> {'met' if rate >= CLAIM else 'missed'}")
