"""`python -m uponce`"""

from uponce.cli import main

if __name__ == "__main__":
    main()
