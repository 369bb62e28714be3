"""The server: the Open Inference Protocol over HTTP, in front of the model in service."""
