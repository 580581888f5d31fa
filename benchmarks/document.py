def peers(rows, missing):
    return str(rows) + str(missing)
