"""A hospital's images on common ground: from its cache where current, else from its files."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.archives import read_acdc_site
from client.cache import cache_key, load_images, save_images
from client.imaging import read_dicom_site
from client.intake.challenge_contours import read_link
from client.overrides import Overruled, overrides_digest, site_overrides
from client.reading import Imaged
from client.site import SiteConfig, inside, site_sorter
from client.site_sections import Images
from client.volumes import read_volume_site
from protocol.config import Preprocessing
from protocol.errors import ConfigError, DataError

__all__ = ["site_images"]

Progress = Callable[[int, int], None]
Found = tuple[list[Imaged], Counter[tuple[str, str]]]


@dataclass(frozen=True)
class _Sources:
    """Everything of a site's directory that its images depend on."""

    images: Images
    root: Path
    mask_root: Path | None
    link: dict[str, str] | None
    overruled: Overruled
    sorter: Path | None

    @classmethod
    def of(cls, site_dir: Path, config: SiteConfig) -> "_Sources":
        if config.images is None:
            raise ConfigError("site.yaml names no images; add images or members.")
        masks = config.masks
        link = None
        if masks is not None and masks.link is not None:
            link = read_link(inside(site_dir, masks.link, "masks.link"))
        return cls(
            config.images,
            _image_root(site_dir, config.images),
            None if masks is None else inside(site_dir, masks.path, "masks.path"),
            link,
            site_overrides(site_dir, config.images),
            site_sorter(site_dir, config.images),
        )

    def settings(
        self, config: SiteConfig, secret: bytes, preprocessing: Preprocessing
    ) -> dict[str, Any]:
        """Return what the cache's key holds beside the files themselves."""
        sorter = self.sorter
        return {
            "preprocessing": preprocessing.model_dump(mode="json"),
            "images": self.images.model_dump(mode="json"),
            "masks": config.masks.model_dump(mode="json") if config.masks else None,
            "quality": config.quality.model_dump(mode="json"),
            "overrides": overrides_digest(self.overruled),
            "link": sorted((self.link or {}).items()),
            "sorter": hashlib.sha256(sorter.read_bytes()).hexdigest() if sorter else None,
            "secret": hashlib.sha256(b"cache" + secret).hexdigest(),
        }


def site_images(
    site_dir: Path,
    config: SiteConfig,
    secret: bytes,
    preprocessing: Preprocessing,
    progress: Progress | None,
) -> Found:
    """Return a site's usable patients, and how many files, series or masks were refused why.

    Raises
    ------
    ConfigError
        If ``site.yaml`` points to what is not there.
    DataError
        If no patient is usable, none of the masks can be used, or the files contradict
        ``site.yaml``.
    """
    sources = _Sources.of(site_dir, config)
    roots = [path for path in (sources.root, sources.mask_root) if path is not None]
    settings = sources.settings(config, secret, preprocessing)
    key = cache_key(roots, settings, sources.images.max_files)
    folder = site_dir / ".concors" / "cache"
    cached = load_images(folder, key)
    if cached is not None:
        return cached
    found = _read(sources, config, secret, preprocessing, progress)
    _refuse_if_useless(config, *found)
    save_images(folder, key, *found)
    return found


def _read(
    sources: _Sources,
    config: SiteConfig,
    secret: bytes,
    preprocessing: Preprocessing,
    progress: Progress | None,
) -> Found:
    images = sources.images
    if images.format == "acdc":
        return read_acdc_site(sources.root, images.group, secret, preprocessing, progress)
    if images.format in ("nifti", "numpy"):
        return read_volume_site(
            sources.root,
            images.format,
            secret,
            preprocessing,
            masks=config.masks,
            mask_root=sources.mask_root,
            limits=config.quality,
            progress=progress,
        )
    return read_dicom_site(
        sources.root,
        secret,
        preprocessing,
        masks=config.masks,
        mask_root=sources.mask_root,
        link=sources.link,
        limits=config.quality,
        bare=images.without_preamble,
        overruled=sources.overruled,
        max_files=images.max_files,
        max_study_images=images.max_study_images,
        sorter=sources.sorter,
        workers=config.workers,
        progress=progress,
    )


def _image_root(site_dir: Path, images: Images) -> Path:
    if images.format == "acdc" and Path(images.path).is_absolute():
        root = Path(images.path)
        if not root.is_dir():
            raise ConfigError("site.yaml: images.path names no folder; correct the path.")
        return root
    return inside(site_dir, images.path, "images.path")


def _refuse_if_useless(
    config: SiteConfig, patients: Sequence[Imaged], refused: Counter[tuple[str, str]]
) -> None:
    def commonest(kind: str) -> str:
        reasons = [(count, reason) for (k, reason), count in refused.items() if k == kind]
        return max(reasons)[1] if reasons else f"no {kind} at all"

    if not patients:
        kind = "patient" if any(k == "patient" for k, _ in refused) else "file"
        raise DataError(
            f"{config.name} has no usable series: {commonest(kind)}; "
            "check images.path in site.yaml and what was exported."
        )
    if config.masks is not None and all(p.prepared.labels is None for p in patients):
        raise DataError(
            f"none of the masks of {config.name} can be used: {commonest('mask')}; "
            "export them again, or remove masks from site.yaml."
        )
