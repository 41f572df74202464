"""Plan, train and predict with nnU-Net's 2-D configuration, for a given number of images, on the CPU.

    python nnunet.py nnUNet_raw/Dataset101_NAME WORK --images 16000 [--size 128 --spacing 2]

Runs in the environment of install.sh, and imports nothing of this project. The masks of imagesTs are in WORK/masks.
Everything but the length of the training is nnU-Net's own, and what --size, --spacing and --batch-size set: with
--size 128 --spacing 2 it resamples slices of 256 x 256 pixels to 128 x 128, and its masks back.
"""

import argparse
import json
import os
import shutil
from pathlib import Path


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("raw", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, required=True, help="images seen in training, repeats counted")
    parser.add_argument("--size", type=int, help="side of the patches in pixels; nnU-Net's plan by default")
    parser.add_argument("--spacing", type=float, help="pixels of the images in one of the network's; 1 by default")
    parser.add_argument("--batch-size", type=int, help="nnU-Net's plan by default")
    options = parser.parse_args()
    raw, work = options.raw.resolve(), options.work.resolve()
    os.environ.update(
        nnUNet_raw=str(raw.parent),
        nnUNet_preprocessed=str(work / "preprocessed"),
        nnUNet_results=str(work / "results"),
        nnUNet_compile="f",
        nnUNet_n_proc_DA="1",  # the planner takes no 0
    )
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.run.run_training import get_trainer_from_args

    number = int(raw.name[7:10])
    extract_fingerprints([number], num_processes=1, check_dataset_integrity=True)
    plan_experiments([number])
    plans = work / "preprocessed" / raw.name / "nnUNetPlans.json"
    content = json.loads(plans.read_text())
    wanted = {
        name: value and [value] * 2 for name, value in (("patch_size", options.size), ("spacing", options.spacing))
    }
    wanted |= {"batch_size": options.batch_size}
    content["configurations"]["2d"].update({key: value for key, value in wanted.items() if value})
    plans.write_text(json.dumps(content))
    preprocess([number], configurations=["2d"], num_processes=[1])
    shutil.copy(raw / "splits_final.json", plans.parent)

    os.environ.update(nnUNet_n_proc_DA="0")  # augmentation in this process
    trainer = get_trainer_from_args(raw.name, "2d", 0, device=torch.device("cpu"))
    batches = max(1, round(options.images / content["configurations"]["2d"]["batch_size"]))
    trainer.num_epochs = max(1, round(batches / 50))
    trainer.num_iterations_per_epoch = round(batches / trainer.num_epochs)
    trainer.num_val_iterations_per_epoch = 1  # its pseudo-Dice; nothing is chosen by it
    trainer.run_training()

    (work / "masks").mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(Path(trainer.output_folder_base)), use_folds=(0,), checkpoint_name="checkpoint_final.pth"
    )
    predictor.predict_from_files_sequential(str(raw / "imagesTs"), str(work / "masks"))


if __name__ == "__main__":
    main()
