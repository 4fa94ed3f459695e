"""`python -m teachcam` does what `teachcam` does."""

from teachcam.commands import main

if __name__ == "__main__":
    main()
