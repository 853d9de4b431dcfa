"""Ten queries of TPC-H written with `Dataset`, with the parameters that the specification validates them by.

Source: TPC Benchmark H, revision 3.0.1, section 2.4. Money is decimal throughout, so that answers are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.dataset import Dataset

from .tables import Tables

_ONE = pc.scalar(pa.scalar(Decimal("1.00"), pa.decimal128(5, 2)))
_FRACTION = pa.decimal128(5, 2)
_REVENUE = pc.field("l_extendedprice") * (_ONE - pc.field("l_discount").cast(_FRACTION))


def pricing_summary(tables: Tables) -> Dataset:
    """Q1: what was billed, shipped and returned up to a date."""
    charge = pc.field("disc_price") * (_ONE + pc.field("l_tax").cast(_FRACTION))
    means = [("quantity", "mean"), ("extendedprice", "mean"), ("discount", "mean")]
    return (
        tables.lineitem.filter(pc.field("l_shipdate") <= date(1998, 9, 2))
        .append_column("disc_price", _REVENUE)
        .append_column("charge", charge)
        .append_column("quantity", pc.field("l_quantity").cast(pa.float64()))
        .append_column("extendedprice", pc.field("l_extendedprice").cast(pa.float64()))
        .append_column("discount", pc.field("l_discount").cast(pa.float64()))
        .group_by(["l_returnflag", "l_linestatus"])
        .aggregate(
            [
                ("l_quantity", "sum"),
                ("l_extendedprice", "sum"),
                ("disc_price", "sum"),
                ("charge", "sum"),
                *means,
                ([], "count_all"),
            ]
        )
        .sort_by([("l_returnflag", "ascending"), ("l_linestatus", "ascending")])
    )


def shipping_priority(tables: Tables) -> Dataset:
    """Q3: the ten orders not yet shipped that are worth most."""
    day = date(1995, 3, 15)
    customers = tables.customer.filter(pc.field("c_mktsegment") == "BUILDING").select(["c_custkey"])
    orders = tables.orders.filter(pc.field("o_orderdate") < day)
    return (
        tables.lineitem.filter(pc.field("l_shipdate") > day)
        .join(
            orders.join(customers, "o_custkey", "c_custkey", join_type="inner"),
            "l_orderkey",
            "o_orderkey",
            join_type="inner",
        )
        .append_column("revenue", _REVENUE)
        .group_by(["l_orderkey", "o_orderdate", "o_shippriority"])
        .aggregate([("revenue", "sum")])
        .select(["l_orderkey", "revenue_sum", "o_orderdate", "o_shippriority"])
        .sort_by([("revenue_sum", "descending"), ("o_orderdate", "ascending")])
        .head(10)
    )


def order_priority(tables: Tables) -> Dataset:
    """Q4: how many orders of a quarter had a line that came late."""
    late = tables.lineitem.filter(pc.field("l_commitdate") < pc.field("l_receiptdate"))
    return (
        tables.orders.filter(_between("o_orderdate", date(1993, 7, 1), date(1993, 10, 1)))
        .join(late, "o_orderkey", "l_orderkey", join_type="left semi")
        .group_by("o_orderpriority")
        .aggregate([([], "count_all")])
        .sort_by("o_orderpriority")
    )


def local_supplier_volume(tables: Tables) -> Dataset:
    """Q5: what customers of a region bought from suppliers of their own nation in a year."""
    region = tables.region.filter(pc.field("r_name") == "ASIA")
    nations = tables.nation.join(region, "n_regionkey", "r_regionkey", join_type="inner")
    suppliers = tables.supplier.join(nations, "s_nationkey", "n_nationkey", join_type="inner")
    orders = tables.orders.filter(_between("o_orderdate", date(1994, 1, 1), date(1995, 1, 1)))
    return (
        tables.lineitem.join(orders, "l_orderkey", "o_orderkey", join_type="inner")
        .join(tables.customer, "o_custkey", "c_custkey", join_type="inner")
        .join(suppliers, ["l_suppkey", "c_nationkey"], ["s_suppkey", "s_nationkey"], join_type="inner")
        .append_column("revenue", _REVENUE)
        .group_by("n_name")
        .aggregate([("revenue", "sum")])
        .sort_by([("revenue_sum", "descending")])
    )


def forecasting_revenue(tables: Tables) -> Dataset:
    """Q6: what small orders would have brought without their discounts."""
    discount, quantity = pc.field("l_discount"), pc.field("l_quantity")
    return (
        tables.lineitem.filter(
            _between("l_shipdate", date(1994, 1, 1), date(1995, 1, 1))
            & (discount >= Decimal("0.05"))
            & (discount <= Decimal("0.07"))
            & (quantity < Decimal(24))
        )
        .append_column("revenue", pc.field("l_extendedprice") * discount)
        .group_by([])
        .aggregate([("revenue", "sum")])
    )


def returned_items(tables: Tables) -> Dataset:
    """Q10: the twenty customers that sent back most in a quarter."""
    orders = tables.orders.filter(_between("o_orderdate", date(1993, 10, 1), date(1994, 1, 1)))
    returned = tables.lineitem.filter(pc.field("l_returnflag") == "R")
    customers = tables.customer.join(tables.nation, "c_nationkey", "n_nationkey", join_type="inner")
    keys = ["c_custkey", "c_name", "c_acctbal", "c_phone", "n_name", "c_address", "c_comment"]
    return (
        returned.join(orders, "l_orderkey", "o_orderkey", join_type="inner")
        .append_column("revenue", _REVENUE)
        .group_by("o_custkey")
        .aggregate([("revenue", "sum")])
        .join(customers, "o_custkey", "c_custkey", join_type="inner")
        .rename_columns({"o_custkey": "c_custkey"})
        .select([*keys[:2], "revenue_sum", *keys[2:]])
        .sort_by([("revenue_sum", "descending"), ("c_custkey", "ascending")])
        .head(20)
    )


def shipping_modes(tables: Tables) -> Dataset:
    """Q12: whether cheaper ways of shipping make urgent orders late."""
    urgent = pc.is_in(pc.field("o_orderpriority"), value_set=pa.array(["1-URGENT", "2-HIGH"]))
    late = (
        pc.is_in(pc.field("l_shipmode"), value_set=pa.array(["MAIL", "SHIP"]))
        & (pc.field("l_commitdate") < pc.field("l_receiptdate"))
        & (pc.field("l_shipdate") < pc.field("l_commitdate"))
        & _between("l_receiptdate", date(1994, 1, 1), date(1995, 1, 1))
    )
    return (
        tables.lineitem.filter(late)
        .join(tables.orders, "l_orderkey", "o_orderkey", join_type="inner")
        .append_column("high_line_count", pc.if_else(urgent, 1, 0))
        .append_column("low_line_count", pc.if_else(urgent, 0, 1))
        .group_by("l_shipmode")
        .aggregate([("high_line_count", "sum"), ("low_line_count", "sum")])
        .sort_by("l_shipmode")
    )


def promotion_effect(tables: Tables) -> Dataset:
    """Q14: the share of promoted parts in a month's revenue, in percent."""
    promoted = pc.starts_with(pc.field("p_type"), "PROMO")
    nothing = pc.scalar(pa.scalar(Decimal(0), pa.decimal128(21, 4)))
    return (
        tables.lineitem.filter(_between("l_shipdate", date(1995, 9, 1), date(1995, 10, 1)))
        .join(tables.part, "l_partkey", "p_partkey", join_type="inner")
        .append_column("revenue", _REVENUE.cast(pa.decimal128(21, 4)))
        .append_column("promo", pc.if_else(promoted, pc.field("revenue"), nothing))
        .group_by([])
        .aggregate([("promo", "sum"), ("revenue", "sum")])
        .append_column(
            "promo_revenue",
            pc.scalar(100.0) * pc.field("promo_sum").cast(pa.float64()) / pc.field("revenue_sum").cast(pa.float64()),
        )
        .select(["promo_revenue"])
    )


def large_customers(tables: Tables) -> Dataset:
    """Q18: the hundred dearest orders of more than 300 pieces, and who gave them."""
    large = (
        tables.lineitem.group_by("l_orderkey")
        .aggregate([("l_quantity", "sum")])
        .filter(pc.field("l_quantity_sum") > Decimal(300))
    )
    return (
        tables.orders.join(large, "o_orderkey", "l_orderkey", join_type="inner")
        .join(tables.customer, "o_custkey", "c_custkey", join_type="inner")
        .rename_columns({"o_custkey": "c_custkey"})
        .select(["c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice", "l_quantity_sum"])
        .sort_by([("o_totalprice", "descending"), ("o_orderdate", "ascending"), ("o_orderkey", "ascending")])
        .head(100)
    )


def discounted_revenue(tables: Tables) -> Dataset:
    """Q19: the revenue of three kinds of parts that were shipped by air and handed over in person."""
    by_air = pc.is_in(pc.field("l_shipmode"), value_set=pa.array(["AIR", "AIR REG"]))
    in_person = pc.field("l_shipinstruct") == "DELIVER IN PERSON"
    wanted = (
        _kind("Brand#12", ["SM CASE", "SM BOX", "SM PACK", "SM PKG"], least_quantity=1, largest_size=5)
        | _kind("Brand#23", ["MED BAG", "MED BOX", "MED PKG", "MED PACK"], least_quantity=10, largest_size=10)
        | _kind("Brand#34", ["LG CASE", "LG BOX", "LG PACK", "LG PKG"], least_quantity=20, largest_size=15)
    )
    return (
        tables.lineitem.filter(by_air & in_person)
        .join(tables.part, "l_partkey", "p_partkey", join_type="inner")
        .filter(wanted)
        .append_column("revenue", _REVENUE)
        .group_by([])
        .aggregate([("revenue", "sum")])
    )


def _kind(brand: str, containers: list[str], *, least_quantity: int, largest_size: int) -> pc.Expression:
    quantity, size = pc.field("l_quantity"), pc.field("p_size")
    return (
        (pc.field("p_brand") == brand)
        & pc.is_in(pc.field("p_container"), value_set=pa.array(containers))
        & (quantity >= Decimal(least_quantity))
        & (quantity <= Decimal(least_quantity + 10))
        & (size >= 1)
        & (size <= largest_size)
    )


def _between(column: str, first: date, end: date) -> pc.Expression:
    """From `first` on, before `end`."""
    return (pc.field(column) >= first) & (pc.field(column) < end)


QUERIES: dict[int, Callable[[Tables], Dataset]] = {
    1: pricing_summary,
    3: shipping_priority,
    4: order_priority,
    5: local_supplier_volume,
    6: forecasting_revenue,
    10: returned_items,
    12: shipping_modes,
    14: promotion_effect,
    18: large_customers,
    19: discounted_revenue,
}
