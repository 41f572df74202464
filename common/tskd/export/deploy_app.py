"""MONAI Deploy application: a DICOM series in, a DICOM Segmentation out. Copied by `tskd export --to deploy`.

It needs monai-deploy-app-sdk and what requirements.txt names, and nothing of tskd. Beside it lie `model/model.ts`, the
network with its configuration (keep the file's name: the SDK finds the configuration by it); `codes.json`, the codes of
its structures; `rules.json`, which series is taken; and `app.yaml`, for the packager.

Usage: python app.py --input FOLDER_WITH_DICOM --output FOLDER --model model/model.ts
"""

import json
import logging
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import (
    BundleConfigNames,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from pydicom.sr.coding import Code

FOLDER = Path(__file__).resolve().parent


def segment_descriptions() -> list[SegmentDescription]:
    """Return the structures in the order of their class indices 1, 2, ..., as the writer numbers segments."""
    table = json.loads((FOLDER / "codes.json").read_text(encoding="utf-8"))
    return [
        SegmentDescription(
            segment_label=structure["name"],
            segmented_property_category=Code(*structure["category"]),
            segmented_property_type=Code(*structure["type"]),
            algorithm_name=table["algorithm"],
            algorithm_version=table["version"],
        )
        for structure in table["structures"]
    ]


class SegmentationApp(Application):
    """Loader -> series selector -> volume -> bundle -> SEG writer."""

    def compose(self) -> None:
        """Connect the operators."""
        context: AppContext = Application.init_app_context(self.argv)
        loader = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="loader"
        )
        rules = (FOLDER / "rules.json").read_text(encoding="utf-8")
        selector = DICOMSeriesSelectorOperator(
            self, rules=rules, all_matched=True, sort_by_sop_instance_count=True, name="selector"
        )
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        bundle = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            app_context=context,
            bundle_config_names=BundleConfigNames(config_names=["inference"]),
            bundle_path=FOLDER / "model" / "model.ts",
            name="bundle",
        )
        writer = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=segment_descriptions(),
            output_folder=Path(context.output_path),
            custom_tags={"SeriesDescription": "Segmentation. Research use only"},
            name="writer",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(volume, bundle, {("image", "image")})
        self.add_flow(selector, writer, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(bundle, writer, {("pred", "seg_image")})


if __name__ == "__main__":
    logging.info("Begin")
    SegmentationApp().run()
