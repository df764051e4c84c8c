create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
insert into t select i, printf('%08x', i * 2654435761 % 4294967296), i / 7.0 from n;
create index tb on t(b);
select count(*), sum(a), total(c), min(b), max(b) from t;
select substr(b, 1, 1) as k, count(*), round(avg(c), 6) from t group by k order by k;
update t set c = c * c where a % 3 = 0;
delete from t where a % 5 = 0;
select count(*), printf('%.9g', total(c)) from t;
select t1.a, t2.a from t t1 join t t2 on t2.b > t1.b where t1.a < 4 and t2.a > 4996 order by 1, 2;
pragma integrity_check;
