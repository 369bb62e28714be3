"""What a trained model makes of images it has not seen."""
