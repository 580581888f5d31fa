-- Takes the functions and the duty of overdue runs away.

DROP FUNCTION pgjobs.delete, pgjobs.retry, pgjobs.cancel;
DELETE FROM pgjobs.duties WHERE name = 'time_out';
