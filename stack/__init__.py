"""Starting the two processes together on one machine: `python -m stack --help`."""
