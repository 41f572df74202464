"""CPU seconds and peak memory of nnU-Net's predictor on a folder of images, from the start of the process.

    .venv-peers/bin/python benchmarks/measure/nnunet_prediction.py RESULTS/nnUNetTrainer__nnUNetPlans__2d IMAGES MASKS

Runs in the environment that `make peers` makes, with nnU-Net's own settings (mirroring, half a patch a step) or, with
--no-mirroring, one pass. Prints one line of JSON.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path


def main() -> None:
    """Predict, and print what it cost."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--no-mirroring", action="store_true")
    options = parser.parse_args()
    os.environ.update(nnUNet_raw="raw", nnUNet_preprocessed="preprocessed", nnUNet_results="results")
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(1)
    options.masks.mkdir(parents=True, exist_ok=True)
    predictor = nnUNetPredictor(
        use_mirroring=not options.no_mirroring,
        device=torch.device("cpu"),
        perform_everything_on_device=False,
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(
        str(options.model), use_folds=(0,), checkpoint_name="checkpoint_final.pth"
    )
    predictor.predict_from_files_sequential(str(options.images), str(options.masks))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"s": round(time.process_time(), 2), "MB": round(peak)}))


if __name__ == "__main__":
    main()
