"""placeholder until merged"""


def join(coordinator, num_processes, process_id): ...
def is_first() -> bool:
    return True


def first_says(work):
    return work()


def note(step): ...
def settle(): ...
def leave(code): ...
