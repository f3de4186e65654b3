-- The four read models of examples/retail, made by PostgreSQL itself from the same events. What a rebuild is compared
-- with: in speed, and row for row.
create schema made;

create temp table lines as
select position, type, occurred_at, (occurred_at at time zone 'UTC')::date as day,
       data ->> 'invoice_no' as invoice_no, data ->> 'stock_code' as stock_code, data ->> 'description' as description,
       (data ->> 'quantity')::bigint as quantity, coalesce(data ->> 'customer_id', '') as customer_id,
       data ->> 'country' as country,
       round((data ->> 'quantity')::bigint * (data ->> 'unit_price')::numeric, 3) as amount
  from gobo.events;

create table made.invoices as
select invoice_no, min(customer_id) as customer_id, min(country) as country, count(*) as lines,
       sum(quantity)::bigint as units, sum(amount) as total,
       (array_agg(occurred_at order by position))[1] as first_at,
       (array_agg(occurred_at order by position desc))[1] as last_at
  from lines group by invoice_no;
alter table made.invoices add primary key (invoice_no);
create index on made.invoices (customer_id);

create table made.customers as
select customer_id,
       count(distinct invoice_no) filter (where type = 'InvoiceLineAdded') as orders,
       count(distinct invoice_no) filter (where type = 'InvoiceLineCancelled') as cancellations,
       count(*) as lines, count(*) filter (where type = 'InvoiceLineCancelled') as cancelled_lines,
       sum(amount) as revenue,
       (array_agg(occurred_at order by position))[1] as first_at,
       (array_agg(occurred_at order by position desc))[1] as last_at
  from lines group by customer_id;
alter table made.customers add primary key (customer_id);

create table made.stock_codes as
select stock_code, coalesce(sum(quantity) filter (where quantity >= 0), 0)::bigint as units_sold,
       coalesce(-sum(quantity) filter (where quantity < 0), 0)::bigint as units_returned,
       sum(amount) as revenue, count(*) as lines,
       (array_agg(description order by position desc) filter (where description is not null))[1] as last_description
  from lines group by stock_code;
alter table made.stock_codes add primary key (stock_code);

create table made.country_day as
select country, day, sum(amount) as revenue, count(*) as lines, count(distinct invoice_no) as invoices
  from lines group by country, day;
alter table made.country_day add primary key (country, day);
create index on made.country_day (day)
