-- The marks are lost.
DROP TABLE pgjobs.marks;
