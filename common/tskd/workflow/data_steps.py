"""The data of a study as steps: prepared images, synthetic images, and the lists that students learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tskd.data.budget import whole_patients
from tskd.workflow.commands import DDPM, MODEL, bundle_command, fill, has_key, options, shared_overrides
from tskd.workflow.steps import MADE, Cell, Step

NAMED = ("images-masks", "volumes")  # preparers whose data set has else the name of the output folder: "dataset"


class DataSteps:
    """The steps of a study before its teachers and students.

    Args:
        config: content of the file, as `check_study` has accepted it (workflow/study.schema.json).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.output = str(config.get("output", f"results/{config['name']}")).rstrip("/")

    @property
    def folds(self) -> list[str]:
        """Names of the folds that are run: "fold-0", ..., or "split" for the data set's own split."""
        folds = self.config.get("folds")
        return [f"fold-{number}" for number in folds.get("run", range(folds["of"]))] if folds else ["split"]

    def data_name(self, dataset: str) -> str:
        """Return what a data set is called outside its study: one that `tskd init` calls "mine" by the study's name."""
        return str(self.config["name"]) if dataset == "mine" else dataset

    def methods(self, dataset: str) -> list[str]:
        """Return methods that are run on a data set."""
        return [name for name, method in self.config["methods"].items() if dataset in method.get("datasets", [dataset])]

    def budgets(self, dataset: str) -> list[int | str]:
        """Return labelled budgets of a data set: numbers of images, "all", and whole patients ("3 patients")."""
        settings = self.config["datasets"][dataset]
        return [*settings.get("budgets", []), *map(whole_patients, settings.get("num_labelled_groups", []))]

    def cells(self, dataset: str) -> Iterator[Cell]:
        """Return folds x budgets x seeds of a data set."""
        for fold in self.folds:
            for budget in self.budgets(dataset):
                for seed in self.config["seeds"]:
                    yield Cell(dataset, fold, budget, seed)

    def prepare(self, cell: Cell) -> Step:
        """Write dataset.json: of all that the data set has, or of a few of each list where the study has a `limit`."""
        folder = f"{self._at(cell)}/dataset"
        if "limit" not in self.config:
            return self._prepare(cell, folder)
        source = self._prepare(cell, f"{folder}-all")
        files = (f"{source.folder}/dataset.json", f"limit-{self.config['limit']}", f"{folder}/dataset.json")
        return Step("prepare", folder, files[-1], ("tskd.workflow.sublist", *files), (source,), folder=folder)

    def _prepare(self, cell: Cell, folder: str) -> Step:
        if given := self.config["datasets"][cell.dataset].get("dataset_dir"):
            return Step("prepare", given, f"{given}/dataset.json", (), folder=given)
        settings = self.config["datasets"][cell.dataset]["prepare"]
        name = {"name": self.data_name(cell.dataset)} if settings["preparer"] in NAMED else {}
        values = {
            "output": folder,
            **name,
            **{key: fill(self.config, value) for key, value in settings.get("options", {}).items()},
        }
        if cell.fold != "split":
            values |= {"fold": cell.fold.removeprefix("fold-"), "folds": self.config["folds"]["of"]}
        command = ("tskd.cli", "prepare", settings["preparer"], *options(values))
        return Step("prepare", folder, f"{folder}/dataset.json", command, folder=folder)

    def weights(self, teacher: str) -> list[Step]:
        """Download the weights of a teacher's foundation model into the user's cache; none if they are a file."""
        name = self.config["teachers"][teacher].get("fetch")
        if name is None:
            return []
        path, record = f"{self.output}/weights/{name}", f"{self.output}/weights/{name}.json"
        return [Step("weights", path, record, ("tskd.cli", "weights", "get", name, "--record", record))]

    def ddpm(self, cell: Cell) -> Step:
        """Train the generator of synthetic images."""
        images = self._generator_images(cell)
        folder = f"{self._at(cell)}/ddpm{self._generator_part(cell)}"
        run_keys = {"seed": self._draw, "in_channels": self._channels(cell), "dataset_dir": images.folder}
        run_keys |= {"output_dir": folder, "model_dir": f"{folder}/models"}
        return self._run("ddpm", DDPM, folder, [images], cell, self.config["synthesis"].get("train", {}), run_keys)

    def synthesise(self, cell: Cell) -> Step:
        """Write synthetic images and pass them through the memorisation gate."""
        images, model, settings = self._generator_images(cell), self.ddpm(cell), self.config["synthesis"]
        folder = f"{self._at(cell)}/synthetic{self._generator_part(cell)}"
        run_keys = {"model_dir": f"{model.folder}/models", "seed": self._draw, "num_images": settings["num_images"]}
        run_keys |= {"dataset_dir": images.folder, "synthetic_dir": folder, "output_dir": f"{folder}/run"}
        return self._run(
            "synthesise", DDPM, folder, [images, model], cell, settings.get("sample", {}), run_keys, base="inference"
        )

    def _generator_images(self, cell: Cell) -> Step:
        """Return the step whose dataset.json the generator is trained on: all real images, or the labelled ones."""
        prepared = self.prepare(cell)
        return self._first(cell, prepared, "labelled", cell.budget_name) if self._generator_part(cell) else prepared

    def _generator_part(self, cell: Cell) -> str:
        """Return what the names of a generator's folders end with where it depends on the budget."""
        return f"-labelled-{cell.budget_name}" if self.config["synthesis"].get("real") == "labelled" else ""

    def transfer(self, cell: Cell, sizes: Mapping[str, Any]) -> dict[str, Step]:
        """Return the steps whose dataset.json a student learns from: of real images, of synthetic ones or both."""
        lists = {}
        if real := sizes.get("real"):
            source = self.prepare(cell)
            lists["real"] = source if real is True else self._first(cell, source, "labelled", cell.budget_name)
        if synthetic := sizes.get("synthetic"):
            source = self.synthesise(cell)
            part = f"synthetic{self._generator_part(cell)}"
            lists["synthetic"] = source if synthetic == "all" else self._first(cell, source, part, synthetic)
        return lists

    def _first(self, cell: Cell, source: Step, part: str, count: int | str) -> Step:
        """Return the list of the first so many images of a step's dataset.json, or of all labelled ones."""
        folder = f"{self._at(cell)}/{part}-{count}"
        files = (f"{source.folder}/dataset.json", str(count), f"{folder}/dataset.json")
        return Step("transfer", folder, files[-1], ("tskd.workflow.sublist", *files), (source,), folder=folder)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _run(
        self, rule: str, bundle: str, path: str, needs: Iterable[Step], cell: Cell, stage: Mapping[str, Any],
        run_keys: Mapping[str, Any], entity: Mapping[str, Any] | None = None, base: str = "train",
    ) -> Step:  # fmt: skip
        """Return a step that runs a bundle: its own keys, then those that the study, the data set and the stage set."""
        dataset = self.config["datasets"][cell.dataset]
        images = ("images_2d",) if dataset.get("images_2d") and bundle != DDPM else ()
        configs = (base, *images, *stage.get("configs", ()))
        classes = {} if bundle == DDPM else {"num_classes": dataset["num_classes"]}
        shared = shared_overrides(self.config, bundle, cell.dataset)
        if "teacher_bundle" in configs:  # those are for the foundation model
            shared = {key: value for key, value in shared.items() if key.split("#")[0] not in (*MODEL, "weights")}
        chosen = {
            **{key: value for key, value in shared.items() if has_key(bundle, configs, key)},
            **(entity or {}).get("overrides", {}),
            **stage.get("overrides", {}),
        }
        values = {"dataset_dir": self.prepare(cell).folder, **classes, **run_keys}
        values |= {key: fill(self.config, value) for key, value in chosen.items()}
        command = bundle_command(bundle, configs, values)
        output = f"{path}/{MADE[rule]}"
        return Step(rule, path, output, command, tuple(needs), path, (bundle, configs), tuple(chosen))

    def _at(self, cell: Cell) -> str:
        return f"{self.output}/{cell.dataset}/{cell.fold}"

    def _step_folder(self, cell: Cell, kind: str, name: str, arm: str) -> str:
        """Folder of a run."""
        return f"{self._at(cell)}/{kind}/{name}/{arm}"

    def _channels(self, cell: Cell) -> int:
        return self.config["datasets"][cell.dataset]["in_channels"]

    @property
    def _draw(self) -> int:
        return self.config["synthesis"].get("seed", self.config["seeds"][0])
