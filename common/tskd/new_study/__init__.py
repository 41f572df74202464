"""A first STUDY.yaml from a folder: find images and masks, measure what they hold, write the file."""
