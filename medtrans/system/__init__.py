"""What the operating system has to do with it: files, devices, signals, progress."""
