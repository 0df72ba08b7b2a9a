"""placeholder until merged"""


def join(*a):
    pass


def is_first():
    return True


def first_says(x):
    return x
