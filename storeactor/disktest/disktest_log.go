package disktest

var logClauses []clause
