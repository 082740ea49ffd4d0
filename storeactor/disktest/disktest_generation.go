package disktest

var generationClauses []clause
