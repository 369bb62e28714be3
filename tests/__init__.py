"""The specification of the project: what each module promises, and whole runs in runs/."""
