-- Takes the accounts of attempts away.

ALTER TABLE pgjobs.jobs DROP COLUMN usage, DROP COLUMN output;
