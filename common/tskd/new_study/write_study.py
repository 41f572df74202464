"""`tskd init`: look at a folder and write a study that fits it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tskd.data.datalist import label_names
from tskd.data.split import share_out
from tskd.errors import TskdError
from tskd.files import write_text
from tskd.machine_file import read_measured
from tskd.networks.weight_store import cache_folder
from tskd.new_study import sources
from tskd.new_study.described import Description, read_description
from tskd.new_study.look import SIZES, Look, look
from tskd.new_study.names import tokens
from tskd.new_study.study_text import DataSet, study_text
from tskd.new_study.tree import Tree, read_tree
from tskd.workflow.preflight import FEW_IMAGES, FEW_PATIENTS

KINDS = {  # words of a folder's name -> modality
    "US": ("us", "ultrasound", "usgra", "busi", "echo"),
    "dermoscopy": ("dermoscopy", "isic", "isic2017", "isic2018", "skin", "ph2", "derm"),
    "fundus photography": ("fundus", "retina", "chase", "drive", "stare", "idrid"),
    "X-ray": ("xray", "cxr", "radiograph", "chestxray"),
}
SEVERAL = re.compile(  # structures of which a patient may have several
    "lesion|tumou?r|cancer|metasta|nodule|cyst|polyp|plaque|stone|lymph|vessel|arter|vein|infarct", re.IGNORECASE
)


@dataclass
class NewStudy:
    """What `tskd init` has written, and what it has to say.

    Attributes:
        files: STUDY.yaml, and a table where one was needed.
        seen: what is there.
        unknown: what could not be known, with what was written in its place.
        notes: what to mind.
    """

    files: list[Path] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """All of it, for the screen."""
        lines = [self.seen[0], *(f"  {line}" for line in self.seen[1:])]
        lines += ["not known, look at these lines of the file:", *(f"  {line}" for line in self.unknown)]
        lines += [f"note: {line}" for line in self.notes]
        file = str(self.files[0])
        lines += [f"wrote {' and '.join(map(str, self.files))}", f"next: tskd train {file} --dry-run"]
        return "\n".join(lines)


def new_study(
    images: Path,
    masks: Path | None = None,
    output: Path = Path("study.yaml"),
    labels: Sequence[str] = (),
    weights: Path | None = None,
    channel: int = 0,
    overwrite: bool = False,
) -> NewStudy:
    """Look at a folder and write a study of what it holds; beside it a table of the files where folders do not suffice.

    Args:
        images: folder of the images, or of images and masks.
        masks: folder of the masks; None tells them from images by their names.
        output: the YAML file to write.
        labels: names of mask values 1, 2, ...; none takes those of a dataset.json, or "structure 1".
        weights: MobileSAM's weights.
        channel: which one to take where each case has several files (nnU-Net's `_0000`, `_0001`).
        overwrite: replace files that are there.

    Raises:
        TskdError: nothing that a study could be of; files that cannot be used; `output` is there.
    """
    described, tree = read_description(images), read_tree(images, masks, channel)
    study = NewStudy([output])
    groups, named_by = sources.patients(tree)
    remedy = sources.too_few(groups, named_by)
    sections = sources.nnunet_lists(images, tree, groups, remedy) or sources.lists(tree, groups, remedy)
    tree = sources.listed(tree, sections)
    measured = look(tree)
    if not sections:
        share_out(sources.patients_of(tree, groups), 0.2, 0.1, 0, remedy)  # raises where they are too few
    options = sources.folders(tree, groups, sections)
    if not options:
        study.files.append(output.with_suffix(".csv"))
    for file in study.files:
        if file.exists() and not overwrite:
            raise TskdError(f"{file}: expected no such file, found one. Name another --output, or give --overwrite.")
    study.seen += _seen(images, described, tree, measured, channel)
    comments: dict[str, str] = {}
    data = DataSet(
        name=_name(images, described), volumes=tree.volumes, sources=options, root="",
        names=_structures(described, measured, labels, study, comments),
        modality=_modality(images, described, tree, measured, channel, study, comments), channels=measured.channels,
        convert=measured.mixed, size=measured.size,
        weights=_weights(weights, study), comments=comments, seen=study.seen,
        measured=read_measured(),
    )  # fmt: skip
    data.window = measured.window if data.modality == "CT" else None
    data.one_piece = [value for value in measured.one_piece if not SEVERAL.search(data.names[value - 1])]
    _patients(tree, groups, named_by, sections, study, comments)
    if tree.volumes and data.one_piece:
        study.unknown.append(
            f"largest_component: {list(data.one_piece)}, as each is one piece in every mask that was read: only the "
            "largest piece of a predicted one is kept. [] where a patient may have several"
        )
    if options:
        data.root, data.sources = _below_root(options)
    else:
        data.root, data.sources = str(output.parent.resolve()), {"table": f"{{data_root}}/{study.files[1].name}"}
        write_text(study.files[1], sources.table(tree, groups, sections))
        comments["table"] = "a line an image: its mask, its patient, its list" if groups or sections else ""
    study.notes += _unlabelled(images, masks, tree)
    write_text(output, study_text(data))
    return study


def _unlabelled(images: Path, masks: Path | None, tree: Tree) -> list[str]:
    """Return what to mind where no image is without a mask: it is these that a distilled student learns most from."""
    if not all(case.mask for case in tree.cases):
        return []
    further = images.resolve().with_name("imagesTs")
    if masks is not None and images.resolve().name == "imagesTr" and further.is_dir():
        return [f"{further} was not looked at; for its images without masks: tskd init {images.parent}"]
    return ["every image has a mask: distillation was measured with images without masks beside them (unlabelled:)"]


def _below_root(options: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return the folder that all lie below, and the options with `{data_root}` in its place."""
    paths = {key: Path(value).resolve() for key, value in options.items() if not key.endswith("suffix")}
    root = os.path.commonpath(paths.values())
    below = {
        key: f"{{data_root}}/{path.relative_to(root).as_posix()}".removesuffix("/.") for key, path in paths.items()
    }
    return root, {**options, **below}


def _name(images: Path, described: Description) -> str:
    """Return the study's name: the data set's or the folder's, in letters, digits and signs that a path may have."""
    folder = images.resolve()
    folder = folder.parent if set(tokens(folder.name)) <= {"images", "image", "imgs", "tr", "train"} else folder
    text = re.sub(r"[^A-Za-z0-9_-]+", "_", described.name or folder.name).strip("_-")
    return text or "study"


def _seen(images: Path, described: Description, tree: Tree, measured: Look, channel: int) -> list[str]:
    labelled = sum(case.mask is not None for case in tree.cases)
    kinds = {"picture": "pictures", "volume": "NIfTI volumes", "series": "DICOM series"}
    what = " and ".join(sorted({kinds[case.image.kind] for case in tree.cases}))
    head = f"{images}: " + (f"{described.kind}'s layout, {described.name or 'with dataset.json'}" if described.kind
                            else "images and masks")  # fmt: skip
    lines = [
        head,
        f"{labelled} {what} with masks" + f", {len(tree.cases) - labelled} without" * (labelled < len(tree.cases)),
    ]
    if tree.channels > 1:
        names = f" ({', '.join(described.channels)})" if described.channels else ""
        lines.append(f"{tree.channels} channels{names}: channel {channel} is taken, a student sees one (--channel)")
    elif not tree.volumes:
        lines.append("colour" if measured.channels == 3 else "grey")
    read = "" if measured.read == labelled else f" (of {measured.read} masks that were read)"
    lines.append(f"mask values {', '.join(map(str, measured.values))} beside 0{read}"
                 + ("; 255: not annotated" if 255 in measured.values and len(measured.values) > 1 else ""))  # fmt: skip
    if measured.size > SIZES[0]:
        lines.append(
            f"{measured.size} px for the student: below that masks lose their shape (Dice {measured.kept:.2f} is kept)"
        )
    lines += [f"not used: {len(names)} {reason} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
              for reason, names in tree.left.items() if names]  # fmt: skip
    return lines + list(described.said)


def _structures(
    described: Description, measured: Look, labels: Sequence[str], study: NewStudy, comments: dict[str, str]
) -> list[str]:
    count = max(measured.structures, *described.labels, len(labels)) if described.labels else measured.structures
    if labels:
        if len(labels) < measured.structures:
            beyond = [value for value in measured.values if len(labels) < value != 255]
            raise TskdError(
                f"--labels: expected {measured.structures} names, as masks have, found {len(labels)}: "
                f"{'; '.join(map(measured.holding, beyond))}. Name as many structures as there are, or correct the "
                "masks."
            )
        names = list(labels)
    else:
        given = {value: name.replace(",", " ") for value, name in described.labels.items()}
        names = [given.get(value, f"structure {value}") for value in range(1, count + 1)]
    label_names(names)
    if unnamed := [name for name in names if name.startswith("structure ")]:
        study.unknown.append(f"labels: what the structures are; written as {', '.join(unnamed)}")
        comments["labels"] = "? names of the mask values 1, 2, ... with commas between them"
    drawn = set(range(1, 2)) if len(measured.values) == 1 else set(measured.values)
    if missing := [name for value, name in enumerate(names, 1) if value not in drawn]:
        study.notes.append(f"no mask that was read shows {', '.join(missing)}")
    study.notes += [
        f"{measured.holding(value)}: where that is no structure, correct the mask, and run this again"
        for value in measured.values
        if value != 255 and measured.rare(value) and names[value - 1 : value] == [f"structure {value}"]
    ]
    return names


def _modality(
    images: Path, described: Description, tree: Tree, measured: Look, channel: int, study: NewStudy,
    comments: dict[str, str],
) -> str:  # fmt: skip
    said = described.modality(channel) if tree.volumes else ""
    if said or measured.modality:
        return said if said in ("MR", "CT") else measured.modality or said
    words = {word for part in images.resolve().parts[-3:] for word in tokens(part)}
    named = next((kind for kind, known in KINDS.items() if words & set(known)), "")
    chosen = "MR" if tree.volumes else named or "unknown"
    why = "as no intensity is below 0 as in CT" if tree.volumes else "by the folder's name" if named else "not known"
    study.unknown.append(f"modality: {chosen}, {why}; it chooses the augmentation")
    comments["modality"] = "? MR, CT, US, dermoscopy, fundus photography, X-ray: chooses the augmentation"
    return chosen


def _weights(weights: Path | None, study: NewStudy) -> str | None:
    """Return MobileSAM's file: the one given, one that lies here or in the cache, or None, which downloads it."""
    if weights is not None and not weights.is_file():
        raise TskdError(f"--weights: expected MobileSAM's file of weights, found none at {weights}")
    here = [Path(folder, name) for folder in (".", "weights") for name in ("mobile_sam.pth", "mobile_sam.pt")]
    file = weights or next((path for path in here if path.is_file()), None)
    if file is None and not (cache_folder() / "mobile_sam.pth").is_file():
        study.notes.append("the teacher's weights (MobileSAM, 39 MB) are downloaded when the study starts")
    return None if file is None else str(file.resolve())


def _patients(
    tree: Tree, groups: dict[str, str], named_by: str, sections: dict[str, str], study: NewStudy,
    comments: dict[str, str],
) -> None:  # fmt: skip
    patients = sources.patients_of(tree, groups)
    labelled = [case for case in tree.cases if case.mask]
    if groups:
        study.seen.append(f"{len(patients)} patients with masks, by the names of {named_by}: see the column group")
    elif len({case.image.patient for case in tree.cases}) > 1:
        study.seen.append(f"{len(patients)} patients with masks, by DICOM's PatientID")
    else:
        each = "volume" if tree.volumes else "image"
        study.unknown.append(f"patients: each {each} counts as one of another patient (group-pattern)")
        comments["group-pattern"] = '        # group-pattern: "^([^_]+)_"    # ? who the patient is: P07 of P07_2'
    if sections:
        count = {
            name: sum(section == name for section in sections.values()) for name in ("training", "validation", "test")
        }
        study.seen.append(
            "lists as the folders say: " + ", ".join(f"{number} {name}" for name, number in count.items())
        )
    if len(patients) < FEW_PATIENTS:
        study.notes.append(f"{len(patients)} patients in all: the numbers will say little about the next one")
    if not tree.volumes and len(labelled) < FEW_IMAGES:
        study.notes.append(f"{len(labelled)} labelled images: the result depends on which ones are drawn for training")
