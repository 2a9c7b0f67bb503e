// The items of a step. Decodes are laid out as the tree that their common pages form: each stretch of keys that several
// sequences share is one item for all of them (Hydragen, arXiv:2402.05099, for a tree of any depth).
#include <algorithm>
#include <numeric>

#include "attention.h"

namespace rm {
namespace {

constexpr int64_t MIN_SPLIT = 256;  // keys; below this, merging costs more than a second thread brings
constexpr int64_t MIN_SHARED = 64;  // keys; below this, merging costs more than reading them again
constexpr double QUERY_COST = 0.15;  // of one more sequence at the same keys, by that of reading them

}  // namespace

// Keys [begin, end), pages shared by all of `sequences`, or all that is left of a single one.
struct Stretch {
    std::vector<int64_t> sequences;
    int64_t begin, end;

    double cost_per_key() const { return 1.0 + QUERY_COST * double(sequences.size() - 1); }
    double cost() const { return cost_per_key() * double(end - begin); }
};

namespace {

class Tree {
  public:
    Tree(const Sequences& sequences, int64_t page_size) : sequences_(sequences), page_size_(page_size) {
        for (int64_t s = 0; s < sequences.count; s++) first_.push_back(sequences.first_page(s, page_size));
    }

    // Adds the stretches of `group`. Their tables are equal below `page`, as far as they see that; keys below page
    // `from` have been added already.
    void divide(std::vector<int64_t> group, int64_t from, int64_t page) {
        if (group.size() == 1) return add_rest(group[0], from);
        // From here on all see what their tables say.
        for (int64_t s : group) page = std::max(page, first(s));
        if (part(group, from, page)) return;
        int64_t common = page;
        while (std::all_of(group.begin(), group.end(), [&](int64_t s) {
            return shareable(s, common) && at(s, common) == at(group[0], common);
        })) common++;
        if (common > page) {  // who has one page in common has those before it too
            // An item reads by the table of its first sequence: of the one that sees most.
            if (sequences_.window)
                std::sort(group.begin(), group.end(), [&](int64_t a, int64_t b) { return context(a) < context(b); });
            const int64_t seen = std::max(from, first(group[0]));
            if ((common - seen) * page_size_ >= MIN_SHARED) {
                stretches.push_back({group, seen * page_size_, common * page_size_});
                from = common;
            }
        }
        // Those that go on together lie side by side; those that cannot share a page more, at the end.
        auto key = [&](int64_t s) { return shareable(s, common) ? int64_t(at(s, common)) : INT64_MAX; };
        std::sort(group.begin(), group.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
        for (size_t i = 0, next; i < group.size(); i = next) {
            next = i + 1;
            while (key(group[i]) != INT64_MAX && next < group.size() && key(group[next]) == key(group[i])) next++;
            divide({group.begin() + int64_t(i), group.begin() + int64_t(next)}, from, common);
        }
    }

    std::vector<Stretch> stretches;

  private:
    void add_rest(int64_t sequence, int64_t from) {
        stretches.push_back({{sequence}, std::max(from, first(sequence)) * page_size_, context(sequence)});
    }

    // Divides those whose contexts end by `page`, where the window of another begins, apart from the others. False if
    // there are none.
    bool part(const std::vector<int64_t>& group, int64_t from, int64_t page) {
        std::vector<int64_t> ended, others;
        for (int64_t s : group) (shareable(s, page) || first(s) == page ? others : ended).push_back(s);
        if (ended.empty()) return false;
        divide(ended, from, 0);
        if (!others.empty()) divide(others, from, 0);
        return true;
    }

    int64_t context(int64_t sequence) const { return sequences_.context_len[sequence]; }
    int64_t first(int64_t sequence) const { return first_[sequence]; }
    int32_t at(int64_t sequence, int64_t page) const {
        return sequences_.tables[sequence * sequences_.table_width + page];
    }
    // A full page, and not the last: every sequence keeps keys of its own.
    bool shareable(int64_t sequence, int64_t page) const {
        return (page + 1) * page_size_ < sequences_.context_len[sequence];
    }

    const Sequences& sequences_;
    const int64_t page_size_;
    std::vector<int64_t> first_;  // the first page that is still seen, by sequence
};

double cost(const Item& item) {
    if (item.kind == Item::CHUNK) return double((item.position + item.count) * item.count);
    return double(item.key_end - item.key_begin) * (1.0 + QUERY_COST * double(item.count - 1));
}

}  // namespace

AttentionPlan::AttentionPlan(const Sequences& sequences, const Pool& pool, int threads) {
    const int64_t tokens = tokens_per_item(pool);
    std::vector<int64_t> decodes;
    for (int64_t s = 0; s < sequences.count; s++) {
        const int64_t start = sequences.query_start[s], length = sequences.query_start[s + 1] - start;
        const int64_t context = sequences.context_len[s], prefix = context - length;
        if (length == 1 && pool.head_dim % VL == 0) {
            decodes.push_back(s);
            continue;
        }
        for (int64_t at = 0; at < length; at += tokens)
            items.push_back({Item::CHUNK, s, start + at, std::min(tokens, length - at), prefix + at, 0, context, -1, 0});
    }
    if (!decodes.empty()) add_decodes(decodes, sequences, pool, threads);
    // Long ones first, so that none is begun last.
    std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return cost(a) > cost(b); });
}

void AttentionPlan::add_decodes(const std::vector<int64_t>& decodes, const Sequences& sequences, const Pool& pool,
                                int threads) {
    Tree tree(sequences, pool.page_size);
    tree.divide(decodes, 0, 0);
    // Stretches are split when there are fewer of them than threads to keep busy.
    double work = 0, longest = 0;
    for (const Stretch& stretch : tree.stretches) {
        work += stretch.cost() * pool.kv_heads;
        longest = std::max(longest, stretch.cost());
    }
    const double fair = work / (4 * threads);
    PartsOf parts_of(sequences.count);
    for (const Stretch& stretch : tree.stretches) {
        const int64_t keys = stretch.end - stretch.begin;
        const bool split = threads > 1 && longest > fair;
        const int64_t most = split ? std::max(MIN_SPLIT, int64_t(fair / stretch.cost_per_key())) : keys;
        add(stretch, std::max<int64_t>(1, (keys + most - 1) / most), sequences, pool, parts_of);
    }
    for (int64_t s : decodes) {
        const auto& ids = parts_of[s];
        if (ids.empty()) continue;
        merges.push_back({sequences.query_start[s], int64_t(merged.size()), int64_t(ids.size())});
        merged.insert(merged.end(), ids.begin(), ids.end());
    }
}

// Items for `pieces` of the stretch's keys, by as many of its sequences at once as an item holds.
void AttentionPlan::add(const Stretch& stretch, int64_t pieces, const Sequences& sequences, const Pool& pool,
                        PartsOf& parts_of) {
    const int64_t keys = stretch.end - stretch.begin, number = int64_t(stretch.sequences.size());
    const int64_t tokens = tokens_per_item(pool);
    const int64_t first_key = sequences.first_page(stretch.sequences[0], pool.page_size) * pool.page_size;
    const bool whole = number == 1 && stretch.begin == first_key && pieces == 1;
    for (int64_t first = 0; first < number; first += tokens) {
        const int64_t count = std::min(tokens, number - first), s = stretch.sequences[first];
        const int64_t member = int64_t(members.size());
        members.insert(members.end(), stretch.sequences.begin() + first, stretch.sequences.begin() + first + count);
        for (int64_t p = 0; p < pieces; p++) {
            items.push_back({number == 1 ? Item::DECODE : Item::SHARED, s, sequences.query_start[s], count,
                             sequences.context_len[s] - 1, stretch.begin + keys * p / pieces,
                             stretch.begin + keys * (p + 1) / pieces, whole ? -1 : parts, member});
            for (int64_t i = 0; i < count && !whole; i++) parts_of[members[member + i]].push_back(parts++);
        }
    }
}

}  // namespace rm
