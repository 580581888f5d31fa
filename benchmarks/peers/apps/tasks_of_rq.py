from noting import note


def noop(i: int) -> None:
    note(i)
