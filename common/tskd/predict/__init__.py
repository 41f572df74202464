"""Masks of a clinic's files from a shipped bundle: `tskd predict`.

find_cases      which files and DICOM series are to be segmented, and what they are called
read_case       one of them as an array with its place in the patient
itk_header      unit and orientation in the header of NRRD and MetaImage
torch_backend   the bundle's own transforms and network, as `monai.bundle run` has them
onnx_backend    the same in NumPy and ONNX Runtime: no module of this room but torch_backend imports torch or MONAI
known_steps     what NumPy computes of an inference.json as MONAI does; the rest is refused
choose_backend  which of the two
write_mask      NIfTI, PNG, DICOM SEG, or the input's format
predict_files   the loop over cases
"""
