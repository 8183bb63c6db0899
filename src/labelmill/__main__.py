"""`python -m labelmill`, for where the command is not on the path."""

from labelmill.cli import main

if __name__ == "__main__":
    main()
