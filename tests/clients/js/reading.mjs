// Every documented call of postgrest-js for reading tables, against the library of ../library.json.
// GOBO_URL says where it is served. Not here: writes, RPC, explain(), geojson(), and the range operators, for which a read
// model has no columns.

import assert from 'node:assert/strict'
import { PostgrestClient, PostgrestError } from '@supabase/postgrest-js'

const url = `${process.env.GOBO_URL}/read`
const client = new PostgrestClient(url)
const books = () => client.from('books')
const failures = []
let checks = 0

/** Runs one check; all of them run, whichever fail. */
async function check(name, run) {
  checks += 1
  try {
    await run()
  } catch (error) {
    failures.push(name)
    console.error(`--- ${name}\n${error.message}`)
  }
}

/** What a query answers, which must be no error. */
async function data(query) {
  const answer = await query
  assert.equal(answer.error, null, JSON.stringify(answer.error))
  return answer.data
}

/** The ids that a filter on books finds. */
async function finds(name, filter, expected) {
  await check(name, async () => {
    const rows = await data(filter(books().select('id')).order('id'))
    assert.deepEqual(rows.map((row) => row.id), expected)
  })
}

// --- select

await check('select() shows all columns', async () => {
  const rows = await data(books().select().eq('id', 2))
  assert.deepEqual(rows, [
    {
      id: 2,
      title: 'Solaris',
      blurb: 'A psychologist visits a station above an ocean that thinks',
      author_id: 2,
      pages: 204,
      price: 7.5,
      in_print: false,
      tags: ['sf'],
      editions: [1961],
      details: { lang: 'pl', formats: ['paper'] },
      published: '1961-06-01',
      added_at: '2026-01-02T10:00:00+00:00',
    },
  ])
})
await check('select(columns)', async () => {
  const rows = await data(books().select('title, pages').eq('id', 2))
  assert.deepEqual(rows, [{ title: 'Solaris', pages: 204 }])
})
await check('select with aliases and casts', async () => {
  const rows = await data(books().select('name:title, "pages", length:pages::text').eq('id', 2))
  assert.deepEqual(rows, [{ name: 'Solaris', pages: 204, length: '204' }])
})
await check('select with JSON paths', async () => {
  const rows = await data(
    books()
      .select('details->lang, l:details->>lang, details->awards->hugo, first:details->formats->>0')
      .eq('id', 1)
  )
  assert.deepEqual(rows, [{ lang: 'en', l: 'en', hugo: 1975, first: 'paper' }])
})
for (const count of ['exact', 'planned', 'estimated']) {
  await check(`select with count: ${count}`, async () => {
    const answer = await books().select('id', { count }).order('id').limit(2)
    assert.equal(answer.error, null)
    assert.deepEqual(answer.data, [{ id: 1 }, { id: 2 }])
    if (count === 'planned') assert.ok(answer.count >= 2, `${answer.count}`)
    else assert.equal(answer.count, 6)
    assert.equal(answer.status, answer.count > 2 ? 206 : 200)
  })
}
await check('select with head', async () => {
  const answer = await books().select('*', { count: 'exact', head: true }).eq('in_print', true)
  assert.deepEqual(
    { data: answer.data, count: answer.count, error: answer.error, status: answer.status },
    { data: null, count: 3, error: null, status: 200 }
  )
})
await check('aggregates', async () => {
  const rows = await data(
    books().select('author_id, count(), pages.sum(), most:pages.max(), pages.min()').order('author_id')
  )
  assert.deepEqual(rows, [
    { author_id: 1, count: 2, sum: 571, most: 387, min: 184 },
    { author_id: 2, count: 2, sum: 526, most: 322, min: 204 },
    { author_id: 3, count: 1, sum: 90, most: 90, min: 90 },
    { author_id: null, count: 1, sum: 12, most: 12, min: 12 },
  ])
  const [all] = await data(books().select('pages.avg()::int4, prices:price.sum()'))
  assert.deepEqual(all, { avg: 200, prices: 40.74 })
})

// --- filters

await finds('eq', (q) => q.eq('title', 'Fiasco, or "The End"'), [4])
await finds('eq with reserved characters', (q) => q.eq('title', '100% (untitled)'), [5])
await finds('eq with letters beyond ASCII', (q) => q.eq('title', 'Éclairs & quarks'), [6])
await finds('eq on a JSON path', (q) => q.eq('details->>lang', 'en'), [1, 3])
await finds('eq on a number in JSON', (q) => q.eq('details->awards->hugo', 1975), [1])
await finds('neq', (q) => q.neq('author_id', 1), [2, 4, 6])
await finds('gt', (q) => q.gt('pages', 204), [1, 4])
await finds('gte', (q) => q.gte('pages', 204), [1, 2, 4])
await finds('lt', (q) => q.lt('price', 7.5), [5, 6])
await finds('lte', (q) => q.lte('added_at', '2026-01-02T10:00:00+00:00'), [1, 2])
await finds('like', (q) => q.like('title', 'The %'), [1, 3])
await finds('like with *', (q) => q.like('title', '*of*'), [3])
await finds('likeAllOf', (q) => q.likeAllOf('title', ['The%', '%Heaven']), [3])
await finds('likeAnyOf', (q) => q.likeAnyOf('title', ['Sol%', '%Heaven']), [2, 3])
await finds('ilike', (q) => q.ilike('title', 'the d%'), [1])
await finds('ilikeAllOf', (q) => q.ilikeAllOf('title', ['THE%', '%heaven']), [3])
await finds('ilikeAnyOf', (q) => q.ilikeAnyOf('title', ['SOL%', '%heaven']), [2, 3])
await finds('regexMatch', (q) => q.regexMatch('title', '^The .*d$'), [1])
await finds('regexIMatch', (q) => q.regexIMatch('title', '^the .*(d|n)$'), [1, 3])
await finds('is null', (q) => q.is('in_print', null), [4, 5])
await finds('is true', (q) => q.is('in_print', true), [1, 3, 6])
await finds('is false', (q) => q.is('in_print', false), [2])
await finds('isDistinct', (q) => q.isDistinct('author_id', 1), [2, 4, 5, 6])
await finds('in', (q) => q.in('id', [1, 3, 99]), [1, 3])
await finds('in with reserved characters', (q) => q.in('title', ['100% (untitled)', 'Solaris']), [2, 5])
await finds('notIn', (q) => q.notIn('id', [1, 2, 3, 4]), [5, 6])
await finds('contains, an array', (q) => q.contains('tags', ['sf', 'dreams']), [3])
await finds('contains, numbers', (q) => q.contains('editions', [1986]), [4])
await finds('contains, JSON', (q) => q.contains('details', { lang: 'en', awards: { hugo: 1975 } }), [1])
await finds('contains, text', (q) => q.contains('tags', '{"a,b"}'), [5])
await finds('containedBy, an array', (q) => q.containedBy('tags', ['sf', 'dreams', 'food']), [2, 3, 4, 6])
await finds('containedBy, JSON', (q) => q.containedBy('details', { lang: 'en', more: 1 }), [3])
await finds('overlaps', (q) => q.overlaps('tags', ['dreams', 'utopia', 'none']), [1, 3])
await finds('textSearch', (q) => q.textSearch('blurb', "'world' & 'dreams'", { config: 'english' }), [3])
await finds('textSearch, plain', (q) => q.textSearch('blurb', 'visits worlds', { type: 'plain', config: 'english' }), [4])
await finds('textSearch, phrase', (q) => q.textSearch('blurb', 'two worlds', { type: 'phrase', config: 'english' }), [1])
await finds('textSearch, websearch', (q) => q.textSearch('blurb', 'world -dreams -ship', { type: 'websearch', config: 'english' }), [1])
await finds('match', (q) => q.match({ author_id: 2, in_print: false }), [2])
await finds('not', (q) => q.not('pages', 'gte', 100), [5, 6])
await finds('not is', (q) => q.not('in_print', 'is', null), [1, 2, 3, 6])
await finds('not in', (q) => q.not('id', 'in', '(1,2,3)'), [4, 5, 6])
await finds('or', (q) => q.or('id.eq.1,title.eq."Fiasco, or \\"The End\\""'), [1, 4])
await finds('or with and', (q) => q.or('and(author_id.eq.1,pages.lt.200),in_print.not.is.null').gt('id', 2), [3, 6])
await finds('filter', (q) => q.filter('tags', 'cs', '{sf}').filter('id', 'not.in', '(1,2)'), [3])
await finds('several filters', (q) => q.gt('id', 1).lt('id', 5).is('in_print', true), [3])

// --- order and pages

const ids = async (query) => (await data(query)).map((row) => row.id)

await check('order', async () => {
  assert.deepEqual(await ids(books().select('id').order('pages')), [5, 6, 3, 2, 4, 1])
  assert.deepEqual(await ids(books().select('id').order('pages', { ascending: false })), [1, 4, 2, 3, 6, 5])
})
await check('order with nullsFirst', async () => {
  const order = (options) =>
    ids(books().select('id').in('id', [1, 2, 5]).order('author_id', options).order('id'))
  assert.deepEqual(await order({ nullsFirst: true }), [5, 1, 2])
  assert.deepEqual(await order({ nullsFirst: false }), [1, 2, 5])
  assert.deepEqual(await order({ ascending: false, nullsFirst: true }), [5, 2, 1])
  assert.deepEqual(await order({ ascending: false, nullsFirst: false }), [2, 1, 5])
})
await check('order by several columns and by a JSON path', async () => {
  const query = books().select('id').order('details->>lang', { nullsFirst: false })
  assert.deepEqual(await ids(query.order('id', { ascending: false })), [3, 1, 6, 2, 5, 4])
})
await check('limit', async () => {
  assert.deepEqual(await ids(books().select('id').order('id').limit(2)), [1, 2])
  assert.deepEqual(await ids(books().select('id').limit(0)), [])
})
await check('range', async () => {
  const answer = await books().select('id', { count: 'exact' }).order('id').range(2, 3)
  assert.deepEqual(answer.data, [{ id: 3 }, { id: 4 }])
  assert.deepEqual([answer.count, answer.status], [6, 206])
})
await check('range beyond the last row', async () => {
  const answer = await books().select('id', { count: 'exact' }).range(10, 19)
  assert.equal(answer.status, 416)
  assert.equal(answer.error.code, 'PGRST103')
  assert.equal(answer.error.details, 'An offset of 10 was requested, but there are only 6 rows.')
})

// --- one row, CSV, NULLs

await check('single', async () => {
  const answer = await books().select('id, title').eq('id', 2).single()
  assert.deepEqual(answer.data, { id: 2, title: 'Solaris' })
  for (const [id, count] of [[99, 0], [1, 6]]) {
    const refused = await books().select('id').gte('id', id).single()
    assert.deepEqual([refused.status, refused.data], [406, null])
    assert.equal(refused.error.code, 'PGRST116')
    assert.equal(refused.error.details, `The result contains ${count} rows`)
  }
})
await check('maybeSingle', async () => {
  assert.deepEqual(await data(books().select('id').eq('id', 2).maybeSingle()), { id: 2 })
  assert.equal(await data(books().select('id').eq('id', 99).maybeSingle()), null)
  const several = await books().select('id').maybeSingle()
  assert.deepEqual([several.status, several.error.code], [406, 'PGRST116'])
})
await check('csv', async () => {
  const text = await data(books().select('id, name:title, in_print, tags').in('id', [1, 4, 6]).order('id').csv())
  assert.equal(
    text,
    'id,name,in_print,tags\n1,The Dispossessed,t,"{utopia,sf}"\n4,"Fiasco, or ""The End""",,{}\n6,Éclairs & quarks,t,{food}'
  )
})
await check('stripNulls', async () => {
  const rows = await data(books().select('id, author_id').in('id', [4, 5]).order('id').stripNulls())
  assert.deepEqual(rows, [{ id: 4, author_id: 2 }, { id: 5 }])
  assert.deepEqual(await data(books().select('id, author_id').eq('id', 5).stripNulls().single()), { id: 5 })
})

// --- schema, errors, aborting

await check('schema', async () => {
  assert.deepEqual(await data(client.schema('read').from('books').select('id').eq('id', 1)), [{ id: 1 }])
  const other = await client.schema('private').from('books').select('id')
  assert.deepEqual([other.status, other.error.code], [406, 'PGRST106'])
  const named = new PostgrestClient(url, { schema: 'read' })
  assert.deepEqual(await data(named.from('books').select('id').eq('id', 1)), [{ id: 1 }])
})
await check('errors', async () => {
  for (const [query, status, code] of [
    [books().select('titel'), 400, '42703'],
    [books().select().eq('id', 'x'), 400, '22P02'],
    [client.from('boks').select(), 404, 'PGRST205'],
    [books().select().filter('id', 'equals', 1), 400, 'PGRST100'],
    [books().select().order('id.up'), 400, 'PGRST100'],
  ]) {
    const { error, data, ...rest } = await query
    assert.deepEqual([rest.status, error?.code, data], [status, code, null], JSON.stringify(error))
    assert.equal(typeof error.message, 'string')
    for (const member of ['details', 'hint']) {
      assert.ok(error[member] === null || typeof error[member] === 'string', member)
    }
  }
})
await check('throwOnError', async () => {
  // A query is sent by its then().
  await assert.rejects(books().select('titel').throwOnError().then(), (error) => {
    assert.ok(error instanceof PostgrestError)
    assert.equal(error.code, '42703')
    return true
  })
})
await check('abortSignal', async () => {
  const controller = new AbortController()
  const sent = books().select('id').abortSignal(controller.signal).then((answer) => answer)
  controller.abort()
  const answer = await sent
  assert.equal(answer.status, 0)
  assert.match(answer.error.message, /AbortError/)
})
await check('setHeader and headers of the client', async () => {
  const strict = new PostgrestClient(url, { headers: { Prefer: 'handling=strict' } })
  const refused = await strict.from('books').select('id').setHeader('Prefer', 'handling=strict, foo=bar')
  assert.deepEqual([refused.status, refused.error.code], [400, 'PGRST122'])
  const answer = await strict.from('books').select('id', { count: 'exact' }).limit(1)
  assert.deepEqual([answer.error, answer.count], [null, 6])
})

// --- embedding

await check('a referenced row', async () => {
  const rows = await data(books().select('id, author:authors(name)').in('id', [1, 5]).order('id'))
  assert.deepEqual(rows, [
    { id: 1, author: { name: 'Ursula K. Le Guin' } },
    { id: 5, author: null },
  ])
})
await check('referencing rows', async () => {
  const rows = await data(client.from('authors').select('name, books(id)').order('id'))
  assert.deepEqual(
    rows.map((row) => [row.name, row.books.map((book) => book.id).sort()]),
    [['Ursula K. Le Guin', [1, 3]], ['Stanisław Lem', [2, 4]], ['A. Nonymous', [6]]]
  )
})
await check('inner joins and filters on what is embedded', async () => {
  const rows = await data(
    books().select('id, authors!inner(name)').eq('authors.country', 'US').order('id')
  )
  assert.deepEqual(rows.map((row) => row.id), [1, 3])
})
await check('order, limit and or on what is embedded', async () => {
  const rows = await data(
    client
      .from('authors')
      .select('id, books(id)')
      .eq('id', 1)
      .order('pages', { referencedTable: 'books', ascending: false })
      .limit(1, { referencedTable: 'books' })
      .or('pages.gt.100,id.eq.3', { referencedTable: 'books' })
  )
  assert.deepEqual(rows, [{ id: 1, books: [{ id: 1 }] }])
  const [range] = await data(
    client
      .from('authors')
      .select('books(id)')
      .eq('id', 1)
      .order('id', { referencedTable: 'books' })
      .range(1, 1, { referencedTable: 'books' })
  )
  assert.deepEqual(range, { books: [{ id: 3 }] })
})
await check('rows that a join table relates', async () => {
  const rows = await data(client.from('shelves').select('name, books(title)').order('id'))
  assert.deepEqual(rows, [
    { name: 'Science fiction', books: [{ title: 'The Dispossessed' }, { title: 'Solaris' }] },
    { name: "Staff's choice", books: [{ title: 'Solaris' }] },
    { name: 'Empty', books: [] },
  ])
  const back = await data(books().select('title, shelves!inner(name)').eq('shelves.id', 2))
  assert.deepEqual(back, [{ title: 'Solaris', shelves: [{ name: "Staff's choice" }] }])
})
await check('what is not related', async () => {
  const answer = await books().select('id, nobody(id)')
  assert.deepEqual([answer.status, answer.error.code], [400, 'PGRST200'])
})

console.log(`${checks - failures.length} of ${checks} checks of postgrest-js hold`)
if (failures.length > 0) {
  console.error(`not these: ${failures.join('; ')}`)
  process.exitCode = 1
}
