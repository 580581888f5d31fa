raise ZeroDivisionError("an application with a fault")
