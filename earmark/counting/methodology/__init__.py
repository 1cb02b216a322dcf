"""The methodology document: how downloads were counted in a period, rule by rule, for whoever audits them.

``rules`` holds the texts of the rules, ``figures`` reads what there is to say, ``document`` writes it.
"""
