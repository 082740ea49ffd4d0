package disktest

var archiveClauses []clause
