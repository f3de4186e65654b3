-- The fast fill of generation $1 has ended. Whoever decided meanwhile that it goes comes first.
update gobo.generations set bulk = false where id = $1 and bulk and state <> 'dropping'
