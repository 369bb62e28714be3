"""From a folder of image files to a table of labels: python -m serving.predict --folder, or make predict FOLDER=."""
